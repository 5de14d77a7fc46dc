"""What went wrong, as gRPC tells it: a code, a sentence, and details that programs can read."""

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from chroma_models.errors import QuotaExceeded
from deployments.ingress.errors import body_of, retry_after_s, wire_of

DOMAIN = "chroma-serve"  # of the reasons in ErrorInfo


def status_of(error: BaseException, request_id: str) -> Status:
    """google.rpc.Status with ErrorInfo and RequestInfo; BadRequest where a field is at fault, QuotaFailure where a
    tenant has used up a share, RetryInfo where coming back helps. Spelled by the one table (errors.py), so a fault says
    nothing but the request id."""
    told = body_of(error, request_id)["error"]
    code: int = grpc.StatusCode[wire_of(error).grpc].value[0]
    status = Status(code=code, message=told["message"])
    status.details.add().Pack(ErrorInfo(reason=told["code"].upper(), domain=DOMAIN))
    status.details.add().Pack(RequestInfo(request_id=request_id))
    if isinstance(error, QuotaExceeded):
        used_up = QuotaFailure.Violation(subject=f"tenant:{error.quota}", description=told["message"])
        status.details.add().Pack(QuotaFailure(violations=[used_up]))
    elif told["param"]:
        fault = BadRequest.FieldViolation(field=told["param"], description=told["message"], reason=told["code"].upper())
        status.details.add().Pack(BadRequest(field_violations=[fault]))
    wait_s = retry_after_s(error)
    if wait_s is not None:
        status.details.add().Pack(RetryInfo(retry_delay=duration(wait_s)))
    return status


def ending(status: Status) -> grpc.Status:
    """As a call ends with it."""
    return rpc_status.to_status(status)


def duration(seconds: float) -> Duration:
    """To the microsecond."""
    whole = Duration()
    whole.FromMicroseconds(round(seconds * 1e6))
    return whole


def seconds(told: Duration) -> float:
    return float(told.seconds) + float(told.nanos) / 1e9
