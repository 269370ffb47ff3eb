<?php

declare(strict_types=1);

namespace App\Models;

final class LabResult extends Record
{
    protected const PREFIX = 'res_';
    protected $casts = ['abnormal' => 'boolean'];
    protected $attributes = ['version' => 0];

    public function toEvent(): array
    {
        return [
            'result_id' => $this->id,
            'order_id' => $this->order_id,
            'patient_id' => $this->patient_id,
            'status' => $this->status,
            'version' => $this->version,
            'abnormal' => $this->abnormal,
        ];
    }
}
