package main

import (
	"strings"
	"testing"
	"time"

	"weft/overlay/status"
)

func TestMetrics(t *testing.T) {
	expires := time.Unix(1_800_000_000, 0)
	st := status.Status{
		Server: status.ServerStatus{Online: true}, Self: status.SelfStatus{CertificateExpires: &expires},
		Peers: []status.PeerStatus{
			{Online: true, Path: "direct", RxBytes: 10, TxBytes: 1}, {Online: true, Path: "relay", RxBytes: 5}, {Online: true, Path: "direct"}, {},
		},
		Health: []status.Health{{Code: "clo\"ck\n"}},
	}
	got := string(metricsText(st, map[string]uint64{"cached": 3}))
	for _, want := range []string{
		"weft_control_connected 1", "weft_relay_connected 0", "weft_key_expiry_timestamp_seconds 1800000000",
		`weft_peers{state="online",path="direct"} 2`, `weft_peers{state="online",path="relay"} 1`, `weft_peers{state="offline",path="none"} 1`,
		"weft_tunnels_received_bytes 15", `weft_health_warnings{code="clo\"ck\n"} 1`, `weft_dns_queries_total{outcome="cached"} 3`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
}

func TestMetricsOnLoopbackOnly(t *testing.T) {
	for _, addr := range []string{":9274", "0.0.0.0:9274", "192.0.2.1:1", "9274"} {
		if l, err := listenMetrics(addr); err == nil {
			l.Close()
			t.Errorf("%s is accepted", addr)
		}
	}
	l, err := listenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
