"""gRPC at the edge: proto/chroma/v1/speech_service.proto, served by the ingress replica itself."""
