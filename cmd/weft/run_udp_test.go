package main

import (
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct {
		endpoint, portmap string
		want              string // the endpoints, or part of the error
		port              uint16
	}{
		{"", "auto", "", 0},
		{"", "off", "", 0},
		{"203.0.113.7:41641", "auto", "203.0.113.7:41641", 41641},
		{"203.0.113.7:41641, [2001:db8::7]:5", "off", "203.0.113.7:41641 [2001:db8::7]:5", 41641},
		{"[::ffff:203.0.113.7]:9", "auto", "203.0.113.7:9", 9},
		{"", "on", "auto or off", 0},
		{"203.0.113.7", "auto", "is not an endpoint", 0},
		{"203.0.113.7:0", "auto", "is not an endpoint", 0},
		{"router.example:41641", "auto", "is not an endpoint", 0},
		{"127.0.0.1:41641", "auto", "is not an endpoint", 0},
		{"0.0.0.0:41641", "auto", "is not an endpoint", 0},
		{"[fe80::1%eth0]:41641", "auto", "is not an endpoint", 0},
		{"203.0.113.7:1,", "auto", "is not an endpoint", 0},
		{strings.Repeat("203.0.113.7:1,", 4) + "203.0.113.7:1", "auto", "at most 4", 0},
	} {
		o := runOptions{endpoint: tt.endpoint, portmap: tt.portmap}
		u, err := o.udp()
		var got []string
		for _, a := range u.Endpoints {
			got = append(got, a.String())
		}
		switch {
		case err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%q: %v", tt.endpoint, err)
		case err == nil && (strings.Join(got, " ") != tt.want || u.Port != tt.port || u.NoPortMap != (tt.portmap == "off")):
			t.Errorf("%q: %+v", tt.endpoint, u)
		}
	}
}
