<?php

declare(strict_types=1);

namespace App\Models;

final class Payment extends Record
{
    protected const PREFIX = 'pay_';
    protected $casts = ['amount' => 'decimal:2']; // a string: '85.00'

    public function toEvent(): array
    {
        return [
            'payment_id' => $this->id,
            'invoice_id' => $this->invoice_id,
            'patient_id' => $this->patient_id,
            'amount' => ['value' => $this->amount, 'currency' => $this->currency],
        ];
    }
}
