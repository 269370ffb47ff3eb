<?php

/** For applications without Composer: `require '…/clients/php/autoload.php';` */

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'WebhookGateway\\')) {
        $file = __DIR__ . '/src/' . strtr(substr($class, strlen('WebhookGateway\\')), '\\', '/') . '.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
