package main

import (
	"encoding/json"
	"strings"
	"testing"

	"weft/coord/ops"
)

func TestDNSVerbs(t *testing.T) {
	t.Setenv("WEFT_DATA", newData(t))
	show := func() (i ops.DNSInfo) {
		t.Helper()
		code, out, errs := verb(t, "dns", "show", "--json")
		if err := json.Unmarshal([]byte(out), &i); code != 0 || err != nil {
			t.Fatalf("%d %v %s%s", code, err, out, errs)
		}
		return i
	}
	for _, c := range []struct {
		args string
		code int
		text string // on stdout, or of the error
	}{
		{"dns records add www A 192.0.2.1 --ttl 60", 0, ""},
		{"dns records add app CNAME www", 0, ""},
		{"dns records list", 0, "www.weft.internal  A      192.0.2.1  60"},
		{"dns records add www A 192.0.2.1", 2, "the same record twice"},
		{"dns records add www.example.org A 192.0.2.1", 2, "--outside"},
		{"dns records add www.example.org A 192.0.2.1 --outside", 0, ""},
		{"dns records add x A", 2, "usage"},
		{"dns records remove www.example.org", 0, ""},
		{"dns records remove www.example.org", 5, "not found"},
		{"dns records remove", 2, "name the record"},
		{"dns routes add corp.example 10.0.0.53 tls://dns.example --bootstrap 192.0.2.3", 0, ""},
		{"dns routes list", 0, "10.0.0.53, tls://dns.example (192.0.2.3)"},
		{"dns routes add weft.internal 10.0.0.53", 2, "never leave it"},
		{"dns nameservers set https://dns.example/dns-query --bootstrap 192.0.2.3", 0, ""},
		{"dns nameservers list --json", 0, `"192.0.2.3"`},
		{"dns nameservers set dns.example", 2, "nameserver"},
		{"dns search set corp.example lan", 0, ""},
		{"dns search list", 0, "corp.example"},
		{"dns set ttl=30 stop-rebinding=on rebinding-allowed=plex.direct", 0, ""},
		{"dns set ttl", 2, "OPTION=VALUE"},
		{"dns set nonsense=1", 2, "no option"},
		{"dns set query-log=maybe", 2, "on or off"},
		{"dns show", 0, "stop-rebinding     on"},
		{"dns aliases list --json", 0, `"aliases": []`},
		{"dns aliases remove nobody", 5, "not found"},
		{"dns device nobody --wildcard on", 5, "nobody"},
		{"dns device nobody", 2, "name what to set"},
		{"dns device nobody --wildcard maybe", 2, "on or off"},
		{"dns preview www", 0, "192.0.2.1"},
		{"dns preview www MX", 0, "NOERROR"},
		{"dns preview git.corp.example", 0, "corp.example goes to 10.0.0.53"},
		{"dns preview www --from nobody", 5, "nobody"},
		{"dns preview www NONSENSE", 2, "unknown record type"},
		{"devices replace nobody somebody", 5, "nobody"},
		{"dns", 2, "name a verb"},
		{"dns records nonsense", 2, "unknown command"},
	} {
		code, out, errs := verb(t, strings.Fields(c.args)...)
		all := out
		if c.code != 0 {
			all = errs
			if out != "" || strings.Count(errs, "\n") != 1 {
				t.Errorf("%s: printed %q and %q", c.args, out, errs)
			}
		}
		if code != c.code || !strings.Contains(all, c.text) {
			t.Errorf("%s: exit %d %q %q, want %d %q", c.args, code, out, errs, c.code, c.text)
		}
	}
	i := show()
	if len(i.Records) != 2 || len(i.Routes) != 1 || len(i.Nameservers) != 1 || len(i.Search) != 2 || i.TTL != 30 || !i.StopRebinding || i.AliasDays != 14 {
		t.Errorf("%+v", i)
	}
	verb(t, "dns", "routes", "remove", "corp.example")
	verb(t, "dns", "nameservers", "clear")
	verb(t, "dns", "search", "clear")
	if i := show(); len(i.Routes)+len(i.Nameservers)+len(i.Search) != 0 {
		t.Errorf("%+v", i)
	}
	if code, out, _ := verb(t, "dns", "records", "remove", "--id", i.Records[0].ID, "--json"); code != 0 || strings.Count(out, `"ttl"`) != 2 {
		t.Errorf("%d %s", code, out)
	}
}
