<?php

declare(strict_types=1);

namespace App\Models;

final class Appointment extends Record
{
    protected const PREFIX = 'apt_';
    protected $casts = ['starts_at' => 'immutable_datetime'];
    protected $attributes = ['version' => 1];

    public function toEvent(): array
    {
        $contact = ['channel' => 'email', 'address' => $this->email, 'language' => 'en', 'reminder_opt_in' => true];

        return [
            'appointment_id' => $this->id,
            'patient_id' => $this->patient_id,
            'practitioner_id' => $this->practitioner_id,
            'starts_at' => $this->starts_at->toRfc3339String(),
            'location_id' => $this->location_id,
            'status' => 'booked',
            'version' => $this->version,
        ] + ($this->email === null ? [] : ['contact' => $contact]);
    }
}
