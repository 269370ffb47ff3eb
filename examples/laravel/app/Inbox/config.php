<?php

return [
    'secrets' => array_filter(explode(',', (string) env('WEBHOOK_SECRETS'))), // two, while one is changed
    'timezone' => env('INBOX_TIMEZONE', 'UTC'), // in which people are told a time
];
