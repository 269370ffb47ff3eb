<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Payment;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Http;

final class PaymentController extends Controller
{
    public function store(Request $request): JsonResponse
    {
        $given = $request->validate([
            'invoice_id' => 'required|string',
            'patient_id' => 'required|string',
            'amount' => 'required|numeric',
            'currency' => 'required|size:3',
        ]);
        $payment = Payment::create($given);
        Http::post(config('services.partners.receipts'), $payment->toArray());

        return response()->json($payment, 201);
    }
}
