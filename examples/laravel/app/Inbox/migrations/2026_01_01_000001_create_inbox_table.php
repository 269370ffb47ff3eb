<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class () extends Migration {
    public function up(): void
    {
        Schema::create('inbox', function (Blueprint $table): void {
            $table->string('webhook_id')->primary();
            $table->longText('body')->nullable(); // null as soon as the work is done
            $table->timestamp('received_at')->useCurrent();
            $table->timestamp('handled_at')->nullable();
        });
    }

    public function down(): void
    {
        Schema::drop('inbox');
    }
};
