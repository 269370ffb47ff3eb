<?php

declare(strict_types=1);

namespace App\Models;

final class Claim extends Record
{
    protected const PREFIX = 'clm_';
    protected $casts = ['total' => 'decimal:2']; // a string: '3420.00'

    public function toEvent(): array
    {
        return [
            'claim_id' => $this->id,
            'patient_id' => $this->patient_id,
            'payer_id' => $this->payer_id,
            'member_id' => $this->member_id,
            'total' => ['value' => $this->total, 'currency' => $this->currency],
        ];
    }
}
