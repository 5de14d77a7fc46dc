"""chroma.v1.SpeechService, as gRPC calls it."""

from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceServicer
from deployments.ingress.services import Services


class SpeechService(SpeechServiceServicer):
    """Each call in the task that gRPC runs it in, which has no Serve parent."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.running = 0
