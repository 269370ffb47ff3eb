// WEBHOOK_SECRET=whsec_… PORT=9000 INBOX=an-existing-folder java Receiver.java: verifies, keeps once, answers.
import static java.nio.charset.StandardCharsets.UTF_8;
import static java.nio.file.StandardOpenOption.*;
import com.sun.net.httpserver.*;
import java.io.IOException;
import java.nio.file.*;
import java.security.*;
import java.util.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
class Receiver {
    static final String TEST = "(?s)\\{(\"(id|type|timestamp)\":\"[^\"]*\",){3}\"test\":true.*";
    static boolean verify(String secret, Headers headers, byte[] body, long now) throws GeneralSecurityException {
        String timestamp = headers.getFirst("webhook-timestamp");
        if (timestamp == null || !timestamp.matches("[0-9]{1,12}")) return false;
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(Base64.getDecoder().decode(secret.replaceFirst("^whsec_", "")), "HmacSHA256"));
        mac.update((headers.getFirst("webhook-id") + "." + timestamp + ".").getBytes(UTF_8));
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(UTF_8);
        String[] offered = String.valueOf(headers.getFirst("webhook-signature")).split(" "); // several during a change
        return Math.abs(now - Long.parseLong(timestamp)) <= 300
            && Arrays.stream(offered).anyMatch(one -> MessageDigest.isEqual(expected, one.getBytes(UTF_8)));
    }

    static boolean keep(Path folder, String id, byte[] body) throws IOException {
        Path draft = Files.write(folder.resolve("." + UUID.randomUUID()), body, CREATE_NEW, WRITE, DSYNC);
        try {
            Files.createLink(folder.resolve(id + ".json"), draft); // once for a name, like a row in a unique index
            return true;
        } catch (FileAlreadyExistsException there) {
            return false;
        } finally {
            Files.delete(draft);
        }
    }

    static void receive(HttpExchange exchange) throws IOException {
        try (exchange) {
            byte[] body = exchange.getRequestBody().readNBytes(2_000_000);
            Headers headers = exchange.getRequestHeaders();
            boolean verified = verify(System.getenv("WEBHOOK_SECRET"), headers, body, new Date().getTime() / 1000);
            boolean isTest = new String(body, UTF_8).matches(TEST); // nothing has happened
            String id = headers.getFirst("webhook-id"), inbox = System.getenv("INBOX"), said = isTest ? "test " : "";
            if (verified && !isTest) said = keep(Path.of(inbox), id, body) ? "accepted " : "duplicate ";
            exchange.sendResponseHeaders(verified ? 204 : 401, -1); // a duplicate is a success, too
            System.out.println(verified ? said + id : "refused");
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    public static void main(String[] arguments) throws IOException {
        var address = new java.net.InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT")));
        HttpServer server = HttpServer.create(address, 0); // a proxy before it speaks TLS
        server.createContext("/", Receiver::receive);
        server.setExecutor(java.util.concurrent.Executors.newCachedThreadPool());
        server.start();
        System.out.println("listening on http://127.0.0.1:" + address.getPort());
    }
}
