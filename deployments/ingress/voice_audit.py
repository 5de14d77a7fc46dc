"""The audit trail of voices as it is told: to its tenant over HTTP, to the operator on the command line."""

from typing import Any

from deployments.ingress.store.tables import VoiceAudit


def told_audit(row: VoiceAudit) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "audio.voice_audit",
        "at": row.at,
        "tenant": row.tenant,
        "key_id": row.key_id,
        "action": row.action,
        "consent": row.consent_id or None,
        "voice": row.voice_id,
        "sha256": row.sha256,
    }
