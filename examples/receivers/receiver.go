// WEBHOOK_SECRET=whsec_… PORT=9000 INBOX=an-existing-folder go run receiver.go: verifies, keeps once, answers.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func verify(secret string, headers http.Header, body []byte, now time.Time) bool {
	seconds, _ := strconv.ParseUint(headers.Get("webhook-timestamp"), 10, 40) // no number: 0, which is too long ago
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", headers.Get("webhook-id"), headers.Get("webhook-timestamp"), body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	fits := func(offered string) bool { return hmac.Equal([]byte(expected), []byte(offered)) }
	recent := err == nil && now.Sub(time.Unix(int64(seconds), 0)).Abs() <= 5*time.Minute
	return recent && slices.ContainsFunc(strings.Fields(headers.Get("webhook-signature")), fits)
}

func keep(folder, id string, body []byte) error {
	draft, err := os.CreateTemp(folder, ".draft-")
	_, failed := draft.Write(body)
	if err = errors.Join(err, failed, draft.Sync(), draft.Close()); err == nil {
		defer os.Remove(draft.Name())
		err = os.Link(draft.Name(), folder+"/"+id+".json") // once for a name, like a row in a unique index
	}
	return err
}
func receive(response http.ResponseWriter, request *http.Request) {
	id, status, said := request.Header.Get("webhook-id"), http.StatusUnauthorized, "refused"
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 2_000_000))
	if err == nil && verify(os.Getenv("WEBHOOK_SECRET"), request.Header, body, time.Now()) {
		status, said = http.StatusNoContent, "accepted "+id
		if event := (struct{ Test bool }{}); json.Unmarshal(body, &event) == nil && event.Test {
			said = "test " + id // nothing has happened
		} else if err = keep(os.Getenv("INBOX"), id, body); errors.Is(err, os.ErrExist) {
			said = "duplicate " + id // a success, too
		} else if err != nil {
			panic(err) // no answer, so the gateway tries again
		}
	}
	response.WriteHeader(status)
	fmt.Println(said)
}

func main() {
	fmt.Println("listening on http://127.0.0.1:" + os.Getenv("PORT")) // a proxy before it speaks TLS
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(receive)))
}
