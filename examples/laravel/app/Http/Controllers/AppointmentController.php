<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Appointment;
use App\Outbox\Outbox;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\DB;

final class AppointmentController extends Controller
{
    public function store(Request $request, Outbox $outbox): JsonResponse
    {
        $given = $request->validate([
            'patient_id' => 'required|string',
            'practitioner_id' => 'required|string',
            'location_id' => 'required|string',
            'starts_at' => 'required|date',
            'email' => 'nullable|email',
        ]);
        $given['starts_at'] = Carbon::parse($given['starts_at'])->utc();
        $appointment = DB::transaction(static function () use ($given, $outbox): Appointment {
            $appointment = Appointment::create($given);
            $outbox->write('appointment.scheduled', $appointment->toEvent(), subject: "patient:{$appointment->patient_id}");

            return $appointment;
        });

        return response()->json($appointment, 201);
    }
}
