"""One line of the log for each response, as it ends: how, how long, how soon, and whether it sounded right."""

import logging

from deployments.ingress.usage import Record

log = logging.getLogger(__name__)


def tell(record: Record) -> None:
    """Not a word of what was said."""
    spoken, played = record.spoken, record.spoken.playback
    first_s, rtf, faults = spoken.first_audio_s, spoken.rtf, spoken.sound.faults
    underruns = played.underruns if record.live else 0
    fields = {
        "response_id": record.id,
        "protocol": record.protocol,
        "outcome": record.outcome,
        "audio_s": round(spoken.audio_s, 2),
        "first_audio_s": None if first_s is None else round(first_s, 4),
        "rtf": None if rtf is None else round(rtf, 4),
        "underruns": underruns,
        "underrun_s": round(played.underrun_s, 4) if record.live else 0.0,
        "losses": spoken.finished.losses if spoken.finished else 0,
        "faults": list(faults),
    }
    log.info(
        "response %s (%s) %s: %.2f s of audio, first after %s s, %d underruns%s",
        record.id,
        record.protocol,
        record.outcome,
        spoken.audio_s,
        "-" if first_s is None else f"{first_s:.3f}",
        underruns,
        "".join(f", {fault}" for fault in faults),
        extra=fields,
    )
