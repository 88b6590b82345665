package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weft/cmd/internal/cli/clitest"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webhook"
)

// TestWebhookVerbs: from making a webhook to its last event, with a server and without.
func TestWebhookVerbs(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", running), func(t *testing.T) {
			data := newData(t)
			t.Setenv("WEFT_DATA", data)
			t.Setenv("WEFT_URL", "https://not.a.webhook.example")
			if running {
				startServer(t, data)
			}
			var status atomic.Int32
			status.Store(200)
			got := make(chan string, 100)
			secret := ""
			r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err == nil {
					err = webhook.Verify(secret, r.Header.Get(webhook.SignatureHeader), b, time.Now())
				}
				if err != nil {
					t.Error(err)
				}
				w.WriteHeader(int(status.Load()))
				got <- r.Header.Get(webhook.EventHeader)
			}))
			defer r.Close()
			code, out, errs := verb(t, "webhooks", "create", r.URL+"/hook", "--allow-target", "127.0.0.1", "--event", "key.*", "--note", "mine")
			var id string
			if n, err := fmt.Sscanf(out, "id %s\nsecret %s\n", &id, &secret); code != 0 || n != 2 || err != nil || errs != "" {
				t.Fatalf("exit %d: %q %q, %v", code, out, errs, err)
			}
			if code, out, errs := verb(t, "webhooks", "test", id); code != 0 || out != "" || !strings.HasPrefix(errs, "the receiver accepted the event: status 200 after ") || <-got != "webhook.test" {
				t.Errorf("exit %d: %q %q", code, out, errs)
			}
			if code, out, _ := verb(t, "webhooks", "test", id, "--json"); code != 0 || <-got != "webhook.test" {
				t.Errorf("exit %d: %s", code, out)
			} else {
				clitest.IsObject(t, "webhooks test", out, "webhook-test/1")
			}
			status.Store(500)
			code, out, errs = verb(t, "webhooks", "test", id, "--json")
			var d store.Delivered
			if err := json.Unmarshal([]byte(out), &d); code != 1 || err != nil || d.Status != 500 || errs != "weft-server: the receiver did not accept the event: it answered 500\n" || <-got != "webhook.test" {
				t.Errorf("exit %d: %q %q, %v", code, out, errs, err)
			}
			status.Store(200)
			if code, _, errs := verb(t, "webhooks", "edit", id, "--tag", "", "--disable"); code != 0 || !strings.HasPrefix(errs, "the webhook "+id+" is changed") {
				t.Errorf("exit %d: %q", code, errs)
			}
			if code, out, _ := verb(t, "webhooks"); code != 0 || !strings.Contains(out, "disabled") || !strings.Contains(out, r.URL+"/hook") || !strings.Contains(out, "mine") {
				t.Errorf("exit %d: %s", code, out)
			}
			if code, _, errs := verb(t, "webhooks", "edit", id, "--enable"); code != 0 {
				t.Errorf("exit %d: %s", code, errs)
			}
			if running {
				if code, _, errs := verb(t, "keys", "create"); code != 0 || <-got != "key.create" {
					t.Errorf("exit %d: %s", code, errs)
				}
				for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
					code, out, _ = verb(t, "webhooks", "show", id)
					if code == 0 && strings.Contains(out, "key.create") {
						break
					} else if time.Now().After(deadline) {
						t.Fatalf("exit %d: %s", code, out)
					}
				}
				if strings.Contains(out, secret) || !strings.Contains(out, "taken") || !strings.Contains(out, "allowed targets   127.0.0.1") {
					t.Errorf("%s", out)
				}
			}
			code, out, _ = verb(t, "webhooks", "rotate", id, "--keep", "0", "--json")
			var made ops.WebhookCreated
			if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil || made.Secret == secret || made.OldUntil != nil {
				t.Errorf("exit %d: %s, %v", code, out, err)
			}
			if code, out, _ := verb(t, "audit", "list", "--op", "webhook."); code != 0 || strings.Contains(out, secret) || strings.Contains(out, made.Secret) || strings.Contains(out, "/hook") {
				t.Errorf("exit %d: %s", code, out)
			}
			if code, _, errs := verb(t, "webhooks", "delete", id); code != 0 || errs != "deleted the webhook "+id+"\n" {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
}
