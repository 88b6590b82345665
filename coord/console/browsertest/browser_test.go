//go:build browser

// Package browsertest drives the console in a real Chromium against the
// backend in memory.
//
// It needs Node.js and Chromium (WEFT_CHROMIUM, else /usr/bin/chromium), and
// installs the pinned playwright-core beside itself. Screenshots go to
// WEFT_SHOTS if that is set. Run it with
//
//	go test -tags browser ./coord/console/browsertest
package browsertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/console/consoletest"
	"weft/coord/install"
)

func TestBrowser(t *testing.T) {
	if _, err := os.Stat("node_modules/playwright-core"); err != nil {
		npm := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	fake := consoletest.New()
	c := console.New(console.Config{Backend: fake, Heartbeat: time.Second, InstallLine: func(token string) string {
		return install.Line("https://weft.example:8443", "sha256//"+strings.Repeat("A", 43)+"=", token)
	}})
	site := httptest.NewServer(c)
	t.Cleanup(func() { c.Close(); site.Close() })
	control := httptest.NewServer(controls(fake))
	t.Cleanup(control.Close)

	node := exec.Command("node", "console.mjs")
	node.Env = append(os.Environ(), "CONSOLE="+site.URL, "CONTROL="+control.URL)
	if os.Getenv("WEFT_CHROMIUM") == "" {
		node.Env = append(node.Env, "WEFT_CHROMIUM=/usr/bin/chromium")
	}
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		t.Fatal(err)
	}
}

// controls lets the script do what devices and the command line would do.
func controls(fake *consoletest.Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /link", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, fake.NewLink()) })
	mux.HandleFunc("POST /sample", func(w http.ResponseWriter, r *http.Request) { fake.Sample() })
	mux.HandleFunc("POST /online", func(w http.ResponseWriter, r *http.Request) {
		fake.SetOnline(r.FormValue("id"), r.FormValue("on") == "true")
	})
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		d, err := fake.Join(r.FormValue("token"), r.FormValue("name"), "linux/arm64")
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fmt.Fprint(w, d.ID)
	})
	mux.HandleFunc("POST /put", func(w http.ResponseWriter, r *http.Request) {
		d := console.Device{ID: fmt.Sprintf("%032x", 0xfe), Name: r.FormValue("name"), Joined: time.Now(), OS: "linux/arm64", IPv4: netip.MustParseAddr("100.64.9.9")}
		fake.Put(console.EventJoined, d)
		fmt.Fprint(w, d.ID)
	})
	mux.HandleFunc("POST /drop-sessions", func(w http.ResponseWriter, r *http.Request) { fake.DropSessions() })
	// A device with every string as hostile as it likes.
	mux.HandleFunc("POST /hostile", func(w http.ResponseWriter, r *http.Request) {
		var texts []string
		if err := json.NewDecoder(r.Body).Decode(&texts); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for i, s := range texts {
			fake.Put(console.EventJoined, console.Device{
				ID: fmt.Sprintf("%032x", 0xbad000+i), Name: s, FQDN: s, Hostname: s + " host", OS: s, Software: s, Tags: []string{s}, User: s, Relay: s, Addr: s,
				IPv4: netip.AddrFrom4([4]byte{100, 66, byte(i >> 8), byte(i)}), Online: i%2 == 0, Joined: time.Now(), LastSeen: time.Now(),
			})
			fake.PutKey(console.Key{ID: fmt.Sprintf("bad%d", i), Note: s, Tags: []string{s}, User: s, Created: time.Now(), Expires: time.Now().Add(time.Hour)})
		}
	})
	mux.HandleFunc("POST /many", func(w http.ResponseWriter, r *http.Request) {
		for i := range 5000 {
			name := fmt.Sprintf("unit-%04d", i)
			fake.Put(console.EventJoined, console.Device{
				ID: fmt.Sprintf("%032x", 0xf1ee70000+i), Name: name, FQDN: name + ".weft.internal", OS: "linux/arm",
				IPv4: netip.AddrFrom4([4]byte{100, 70, byte(i >> 8), byte(i)}), Tags: []string{"device"}, Online: i%3 != 0,
				LastSeen: time.Now().Add(-time.Duration(i) * time.Minute),
			})
		}
	})
	return mux
}
