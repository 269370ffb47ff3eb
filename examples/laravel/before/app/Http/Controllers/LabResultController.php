<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\LabResult;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Http;

final class LabResultController extends Controller
{
    public function finalise(Request $request, string $id): JsonResponse
    {
        $given = $request->validate([
            'order_id' => 'required|string',
            'patient_id' => 'required|string',
            'abnormal' => 'required|boolean',
        ]);
        $result = LabResult::find($id) ?? new LabResult(['id' => $id]);
        $result->fill($given + ['status' => 'final', 'version' => $result->version + 1])->save();
        Http::post(config('services.partners.doctors'), $result->toArray());

        return response()->json($result);
    }
}
