<?php

/** Answers as a gateway would, or as what may stand before one; the type of the event says how. */

declare(strict_types=1);

$body = file_get_contents('php://input');
$type = json_decode($body, true)['type'];

header('Content-Type: application/json');
if ($type === 'seen') {
    http_response_code(202);
    $seen = [$_SERVER['REQUEST_METHOD'], $_SERVER['REQUEST_URI'], $_SERVER['HTTP_AUTHORIZATION'],
        $_SERVER['CONTENT_TYPE'], hash('sha256', $body)];
    echo json_encode(['id' => implode('|', $seen), 'duplicate' => strlen($body) > 1_000_000]);
} elseif ($type === 'invalid') {
    http_response_code(422);
    header('Content-Type: application/problem+json');
    echo json_encode(['title' => 'The request breaks the rules', 'detail' => 'Correct what `errors` lists.', 'errors' => [
        ['pointer' => '/data/version', 'rule' => 'type', 'remedy' => 'Give an integer.'],
        ['parameter' => 'x', 'rule' => 'unknown', 'remedy' => 'Leave it out.'],
    ]]);
} elseif ($type === 'proxy') {
    http_response_code(413);
    header('Content-Type: text/html');
    echo '<p>', json_decode($body, true)['subject'] ?? '', '</p>';
} elseif ($type === 'nonsense') {
    http_response_code(422);
    header('Content-Type: application/problem+json; charset=utf-8');
    echo '{"title": 7, "detail": ["x"], "errors": [7, {"pointer": {}}, {"rule": "r"}]}';
} elseif ($type === 'elsewhere') {
    http_response_code(202);
    echo '{"status": "ok"}';
} elseif ($type === 'moved') {
    header('Location: /elsewhere', true, 307);
} else {
    http_response_code((int) $type);
    header('Retry-After: ' . (json_decode($body, true)['subject'] ?? ''));
    header('Content-Type: application/problem+json');
    echo '{}';
}
