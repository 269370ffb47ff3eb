<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Shift;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\Http;

final class ShiftController extends Controller
{
    public function store(Request $request): JsonResponse
    {
        $given = $request->validate([
            'staff_id' => 'required|string',
            'facility_id' => 'required|string',
            'starts_at' => 'required|date',
        ]);
        $given['starts_at'] = Carbon::parse($given['starts_at'])->utc();
        $shift = Shift::create($given);
        Http::post(config('services.partners.staff'), $shift->toArray());

        return response()->json($shift, 201);
    }
}
