//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// Debian's Prometheus scrapes a server and a node, and accepts their metrics.
func TestMetrics(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host := l.Host("server")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443", "--metrics", "127.0.0.1:9273", "--log-format", "json")
	node := l.Node(host, "kitchen-pi")
	node.Up(s.Token, "--metrics", "127.0.0.1:9274", "--log-format", "json")
	var line struct{ Msg, Level string }
	if err := json.Unmarshal([]byte(strings.SplitN(s.Err(), "\n", 2)[0]), &line); err != nil || line.Msg == "" || line.Level == "" {
		t.Errorf("the server's log is no JSON: %v\n%s", err, s.Err())
	}
	if err := json.Unmarshal([]byte(strings.SplitN(node.Err(), "\n", 2)[0]), &line); err != nil || line.Msg == "" {
		t.Errorf("the node's log is no JSON: %v\n%s", err, node.Err())
	}

	sys := l.DebianRoot(host, false, "prometheus")
	get := func(address string) string {
		res, err := host.HTTP("").Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	for _, port := range []string{"9273", "9274"} {
		text := get("http://127.0.0.1:" + port + "/metrics")
		if r := sys.RunInput(text, "promtool", "check", "metrics"); r.Code != 0 {
			t.Errorf("%s: %v\n%s", port, r, text)
		}
	}
	sys.WriteFile("/tmp/prometheus.yml", `global: {scrape_interval: 1s}
scrape_configs:
- job_name: weft
  static_configs: [{targets: ["127.0.0.1:9273", "127.0.0.1:9274"]}]
`)
	sys.Start("prometheus", "--config.file=/tmp/prometheus.yml", "--storage.tsdb.path=/tmp/tsdb", "--web.listen-address=127.0.0.1:9090")
	query := func(q string) string {
		res, err := host.HTTP("").Get("http://127.0.0.1:9090/api/v1/query?query=" + url.QueryEscape(q))
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	for q, want := range map[string]string{
		`sum(up{job="weft"})`:                      `"2"`,
		`weft_server_devices{state="online"}`:      `"1"`,
		`weft_relay_clients`:                       `"1"`,
		`sum(weft_server_requests_total) > bool 0`: `"1"`,
		`weft_control_connected`:                   `"1"`,
		`count(weft_build_info)`:                   `"2"`,
	} {
		var got string
		l.Until(60*time.Second, fmt.Sprintf("%s is %s", q, want), func() bool { got = query(q); return strings.Contains(got, want) })
	}
	// There are no metrics on the public listener.
	c := host.HTTP("")
	res, err := c.Get("http://127.0.0.1:8080/metrics")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 404 {
		t.Errorf("/metrics on the console: %s", res.Status)
	}
}
