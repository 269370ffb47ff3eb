# Receives webhooks as a Rack application: verifies each, keeps it once, answers. Your work then reads the inbox.
# In config.ru, for Puma or any other server (Rails can mount it, too):
#   require_relative "receiver"
#   run Receiver.new(ENV.fetch("WEBHOOK_SECRET"), "inbox")
require "fileutils"
require "json"
require "openssl"
require "securerandom"

class Receiver
  LONGEST = 2_000_000 # bytes

  def initialize(secret, folder)
    @key = secret.delete_prefix("whsec_").unpack1("m0") # "m0" is strict base64
    @folder = folder
    FileUtils.mkdir_p(folder)
  end

  def call(env)
    body = env["rack.input"].read(LONGEST) || ""
    id, timestamp, offered = %w[ID TIMESTAMP SIGNATURE].map { |name| env["HTTP_WEBHOOK_#{name}"].to_s }
    return answer(401, "refused") unless verify(id, timestamp, offered, body)

    return answer(204, "test #{id}") if JSON.parse(body)["test"] == true # nothing has happened

    answer(204, keep(id, body) ? "accepted #{id}" : "duplicate #{id}") # a duplicate is a success, too
  end

  def verify(id, timestamp, offered, body, now = Time.now.to_i)
    return false unless timestamp.match?(/\A\d{1,12}\z/) && (now - timestamp.to_i).abs <= 300

    expected = "v1," + [OpenSSL::HMAC.digest("SHA256", @key, "#{id}.#{timestamp}.".b + body.b)].pack("m0")
    offered.split.any? { |one| OpenSSL.secure_compare(expected, one) } # several, while a secret is changed
  end

  private

  # False if it was there before: a name can be linked once. A table does the same with a unique index.
  def keep(id, body)
    draft = File.join(@folder, ".#{SecureRandom.uuid}")
    File.open(draft, "wbx") { |file| file.write(body) && file.fsync }
    File.link(draft, File.join(@folder, "#{id}.json"))
    true
  rescue Errno::EEXIST
    false
  ensure
    File.delete(draft)
  end

  def answer(status, said)
    $stdout.puts(said)
    $stdout.flush
    [status, {}, []]
  end
end
