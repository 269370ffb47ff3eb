<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Payment;
use App\Outbox\Outbox;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;

final class PaymentController extends Controller
{
    public function store(Request $request, Outbox $outbox): JsonResponse
    {
        $given = $request->validate([
            'invoice_id' => 'required|string',
            'patient_id' => 'required|string',
            'amount' => 'required|numeric',
            'currency' => 'required|size:3',
        ]);
        $payment = DB::transaction(static function () use ($given, $outbox): Payment {
            $payment = Payment::create($given);
            $outbox->write('payment.processed', $payment->toEvent(), subject: "patient:{$payment->patient_id}");

            return $payment;
        });

        return response()->json($payment, 201);
    }
}
