<?php

use App\Http\Controllers\AppointmentController;
use App\Http\Controllers\ClaimController;
use App\Http\Controllers\LabResultController;
use App\Http\Controllers\PaymentController;
use App\Http\Controllers\ShiftController;
use Illuminate\Support\Facades\Route;

Route::post('/appointments', [AppointmentController::class, 'store']);
Route::post('/payments', [PaymentController::class, 'store']);
Route::put('/lab-results/{id}', [LabResultController::class, 'finalise']);
Route::post('/claims', [ClaimController::class, 'store']);
Route::post('/shifts', [ShiftController::class, 'store']);
