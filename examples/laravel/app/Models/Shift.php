<?php

declare(strict_types=1);

namespace App\Models;

final class Shift extends Record
{
    protected const PREFIX = 'shf_';
    protected $casts = ['starts_at' => 'immutable_datetime'];
    protected $attributes = ['version' => 1];

    public function toEvent(): array
    {
        return [
            'shift_id' => $this->id,
            'staff_id' => $this->staff_id,
            'facility_id' => $this->facility_id,
            'starts_at' => $this->starts_at->toRfc3339String(),
            'version' => $this->version,
        ];
    }
}
