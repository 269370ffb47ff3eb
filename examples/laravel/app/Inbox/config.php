<?php

return [
    'secrets' => array_filter(explode(',', (string) env('WEBHOOK_SECRETS'))), // two, while one is changed
];
