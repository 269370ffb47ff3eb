<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Appointment;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\Http;

final class AppointmentController extends Controller
{
    public function store(Request $request): JsonResponse
    {
        $given = $request->validate([
            'patient_id' => 'required|string',
            'practitioner_id' => 'required|string',
            'location_id' => 'required|string',
            'starts_at' => 'required|date',
            'email' => 'nullable|email',
        ]);
        $given['starts_at'] = Carbon::parse($given['starts_at'])->utc();
        $appointment = Appointment::create($given);
        Http::post(config('services.partners.sms'), $appointment->toArray());
        Http::post(config('services.partners.calendar'), $appointment->toArray());

        return response()->json($appointment, 201);
    }
}
