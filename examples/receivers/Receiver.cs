// Receives webhooks with .NET alone: verifies each, keeps it once, answers. Your work then reads the inbox.
// WEBHOOK_SECRET=whsec_… PORT=9000 INBOX=an-existing-folder dotnet run
using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading.Tasks;

static class Receiver
{
    static bool Verify(string secret, string id, string timestamp, string offered, byte[] body, DateTimeOffset now)
    {
        if (!Regex.IsMatch(timestamp ?? "", @"\A[0-9]{1,12}\z")) return false;
        if (Math.Abs(now.ToUnixTimeSeconds() - long.Parse(timestamp)) > 300) return false;
        byte[] content = Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray();
        using (var mac = new HMACSHA256(Convert.FromBase64String(secret.Substring("whsec_".Length))))
        {
            byte[] expected = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(mac.ComputeHash(content)));
            return (offered ?? "").Split(' ') // several, while a secret is changed
                .Any(one => CryptographicOperations.FixedTimeEquals(expected, Encoding.UTF8.GetBytes(one)));
        }
    }

    // False if it was there before: a name exists once. A table does the same with a unique index.
    static bool Keep(string folder, string id, byte[] body)
    {
        string draft = Path.Combine(folder, "." + Guid.NewGuid()), name = Path.Combine(folder, id + ".json");
        using (var file = File.Create(draft)) { file.Write(body, 0, body.Length); file.Flush(true); }
        try { File.Move(draft, name); return true; }
        catch (IOException) when (File.Exists(name)) { File.Delete(draft); return false; }
    }

    const string Test = @"\A\{(""(id|type|timestamp)"":""[^""]*"",){3}""test"":true";
    static void Receive(HttpListenerContext context)
    {
        var headers = context.Request.Headers;
        var body = new MemoryStream();
        if (context.Request.ContentLength64 < 2_000_000) context.Request.InputStream.CopyTo(body);
        string id = headers["webhook-id"], secret = Environment.GetEnvironmentVariable("WEBHOOK_SECRET");
        string timestamp = headers["webhook-timestamp"], offered = headers["webhook-signature"];
        bool verified = Verify(secret, id, timestamp, offered, body.ToArray(), DateTimeOffset.UtcNow);
        bool isTest = verified && Regex.IsMatch(Encoding.UTF8.GetString(body.ToArray()), Test); // nothing has happened
        bool isNew = verified && !isTest && Keep(Environment.GetEnvironmentVariable("INBOX"), id, body.ToArray());
        context.Response.StatusCode = verified ? 204 : 401; // a duplicate is a success, too
        context.Response.Close();
        Console.WriteLine(verified ? (isTest ? "test " : isNew ? "accepted " : "duplicate ") + id : "refused");
    }

    static void Main()
    {
        var listener = new HttpListener();
        listener.Prefixes.Add($"http://127.0.0.1:{Environment.GetEnvironmentVariable("PORT")}/"); // a proxy speaks TLS
        listener.Start();
        Console.WriteLine("listening on " + listener.Prefixes.Single());
        while (true) { var context = listener.GetContext(); Task.Run(() => Receive(context)); }
    }
}
