"""The models of GNU Health whose changes are told to partners."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from trytond.model import Model, fields
from trytond.pool import Pool, PoolMeta
from trytond.transaction import Transaction

from . import events
from .events import Known, Told

LONGEST = 256
"""Characters of one value, by the schemas."""


class Published(Model):
    """Whatever way a record changes, its events are written with it.

    The record first, then the outbox: the record's locked row brings its events into their order.
    """

    event_version = fields.Integer("Version of the Last Event", readonly=True)

    @classmethod
    def create(cls, vlist: list[dict[str, Any]]) -> Any:
        made = super().create([{**values, "event_version": 0} for values in vlist])
        cls._publish({record.id: None for record in made})
        return made

    @classmethod
    def write(cls, *pairs: Any) -> None:
        before = cls._before([record for records in pairs[::2] for record in records])
        super().write(*pairs)
        cls._publish(before)

    @classmethod
    def delete(cls, records: list[Any]) -> None:
        before = cls._before(records)
        super().delete(records)
        for known in before.values():
            for number, (type, data) in enumerate(cls._events(known, None), known.version + 1):
                cls._add(type, data, number)

    @classmethod
    def _before(cls, records: list[Any]) -> dict[int, Known]:
        # What partners are told does not depend on what the user may see.
        with Transaction().set_context(_check_access=False):
            return {record.id: record.known() for record in cls.browse([record.id for record in records])}

    @classmethod
    def _publish(cls, before: dict[int, Any]) -> None:
        with Transaction().set_context(_check_access=False):
            for record in cls.browse(list(before)):
                known = record.known()
                told = list(cls._events(before[record.id], known))
                if told:
                    super().write([record], {"event_version": known.version + len(told)})
                for number, (type, data) in enumerate(told, known.version + 1):
                    cls._add(type, data, number)

    @classmethod
    def _add(cls, type: str, data: dict[str, Any], version: int) -> None:
        Pool().get("webhook.outbox").add(type, {**data, "version": version})

    @classmethod
    def _events(cls, before: Known | None, after: Known | None) -> Iterator[Told]:
        raise NotImplementedError

    def known(self) -> Known:
        raise NotImplementedError


class Appointment(Published, metaclass=PoolMeta):
    __name__ = "gnuhealth.appointment"

    _events = staticmethod(events.of_appointment)

    def known(self) -> Known:
        data = {
            "appointment_id": str(self.id),
            "patient_id": self.patient and str(self.patient.id),
            "practitioner_id": self.healthprof and str(self.healthprof.id),
            "location_id": self.institution and str(self.institution.id),
            "starts_at": moment(self.appointment_date),
            "modality": "video" if self.appointment_type == "telemedicine" else "in_person",
        }
        return Known(self.state, given(data), self.event_version or 0)


class Lab(Published, metaclass=PoolMeta):
    __name__ = "gnuhealth.lab"

    _events = staticmethod(events.of_result)

    def known(self) -> Known:
        observations = [observation(analyte) for analyte in self.critearea if is_measured(analyte)]
        data = {
            "result_id": str(self.id),
            "order_id": str(self.request_order or f"result-{self.id}"),
            "accession_number": self.name,
            "patient_id": self.patient and str(self.patient.id),
            "status_changed_at": moment(self.done_date),
            "panel": {"system": "urn:gnuhealth:lab", "code": self.test.code},
            "abnormal": any(seen["flag"] in ("H", "L", "A") for seen in observations),
            "observations": observations,
        }
        return Known(self.state, given(data), self.event_version or 0)


def is_measured(analyte: Any) -> bool:
    return not analyte.excluded and (analyte.result is not None or bool(analyte.result_text))


def observation(analyte: Any) -> dict[str, Any]:
    value, low, high = analyte.result, analyte.lower_limit, analyte.upper_limit
    text = analyte.result_text if value is None else str(int(value) if analyte.to_integer else value)
    return {
        "code": {"system": "urn:gnuhealth:lab", "code": analyte.code or analyte.name, "display": analyte.name},
        "value": text if len(text) <= LONGEST else "see the result",
        "unit": (analyte.units and analyte.units.code) or "1",
        "reference_range": (analyte.normal_range or "unknown")[:LONGEST],
        "flag": events.flag(value, low, high, bool(analyte.warning)),
        "status": "final",
    }


def moment(naive: datetime | None) -> str | None:
    """Tryton keeps UTC."""
    return naive.replace(tzinfo=UTC).isoformat() if naive else None


def given(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
