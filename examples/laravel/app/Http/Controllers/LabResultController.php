<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\LabResult;
use App\Outbox\Outbox;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;

final class LabResultController extends Controller
{
    public function finalise(Request $request, Outbox $outbox, string $id): JsonResponse
    {
        $given = $request->validate([
            'order_id' => 'required|string',
            'patient_id' => 'required|string',
            'abnormal' => 'required|boolean',
        ]);
        $result = DB::transaction(static function () use ($id, $given, $outbox): LabResult {
            $result = LabResult::lockForUpdate()->find($id) ?? new LabResult(['id' => $id]);
            $result->fill($given + ['status' => 'final', 'version' => $result->version + 1])->save();
            $outbox->write('lab_result.final', $result->toEvent(), subject: "patient:{$result->patient_id}");

            return $result;
        });

        return response()->json($result);
    }
}
