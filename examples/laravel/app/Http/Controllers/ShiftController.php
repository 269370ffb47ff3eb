<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Shift;
use App\Outbox\Outbox;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\DB;

final class ShiftController extends Controller
{
    public function store(Request $request, Outbox $outbox): JsonResponse
    {
        $given = $request->validate([
            'staff_id' => 'required|string',
            'facility_id' => 'required|string',
            'starts_at' => 'required|date',
        ]);
        $given['starts_at'] = Carbon::parse($given['starts_at'])->utc();
        $shift = DB::transaction(static function () use ($given, $outbox): Shift {
            $shift = Shift::create($given);
            $outbox->write('staff_shift.assigned', $shift->toEvent(), subject: "staff:{$shift->staff_id}");

            return $shift;
        });

        return response()->json($shift, 201);
    }
}
