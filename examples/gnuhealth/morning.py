"""A morning in GNU Health, as its clients do it: `python morning.py trytond.conf sqlite:///gh`."""

import sys
from datetime import date, datetime, timedelta

from proteus import Model, config

moment = datetime.fromisoformat  # Tryton's have no zone: UTC
_, settings, database = sys.argv
config.set_trytond(database, config_file=settings)
Party, Patient = Model.get("party.party"), Model.get("gnuhealth.patient")
Professional, User = Model.get("gnuhealth.healthprofessional"), Model.get("res.user")
Appointment = Model.get("gnuhealth.appointment")
Lab, TestType = Model.get("gnuhealth.lab"), Model.get("gnuhealth.lab.test_type")

(admin,) = User.find([("login", "=", "admin")])
doctor = Party(name="Cordara", lastname="Cameron", is_person=True, is_healthprof=True, gender="f", internal_user=admin)
doctor.dob = date(1970, 1, 1)
doctor.save()
professional = Professional(party=doctor)
professional.save()
person = Party(
    name="Unforgettable", lastname="Amal", is_person=True, is_patient=True, gender="f", dob=date(1985, 10, 4)
)
person.save()
(patient,) = Patient.find([("party", "=", person.id)])

appointment = Appointment(patient=patient, healthprof=professional, appointment_date=moment("2026-12-01T09:30"))
appointment.save()
appointment.appointment_date += timedelta(days=1)
appointment.save()
appointment.comments = "of no interest to a partner"
appointment.save()
missed = Appointment(patient=patient, appointment_date=moment("2026-12-01T10:00"))
missed.save()
missed.click("miss_out")
Appointment(state="free", appointment_date=moment("2026-12-01T11:00")).save()

(cbc,) = TestType.find([("code", "=", "CBC")])
lab = Lab(patient=patient, test=cbc, requestor=professional, date_requested=moment("2026-12-01T08:00"))
lab.save()
lab.click("complete_criteareas")
lab.reload()
haemoglobin = lab.critearea[0]
haemoglobin.result, haemoglobin.lower_limit, haemoglobin.upper_limit = 13.1, 11, 16
lab.save()
lab.click("generate_document")
lab.reload()
lab.critearea[0].result = 10.2
lab.save()
