package console

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"weft/coord/ops"
	"weft/dns"
	"weft/overlay/api"
)

// dnsOption is one line of the options' form.
type dnsOption struct {
	Name, Label, Hint string
	Switch            bool
	Value             string
	On                bool
}

var dnsOptions = []dnsOption{
	{Name: "stop-rebinding", Switch: true, Label: "Stop rebinding", Hint: "Takes private addresses out of answers for public names."},
	{Name: "keep-browsers", Switch: true, Label: "Keep browsers on this resolver", Hint: "Asks them to leave their own DNS over HTTPS off."},
	{Name: "serve-stale", Switch: true, Label: "Answer from memory when nameservers fail", Hint: "For a day at most, and never for the network’s own names."},
	{Name: "lan-names-win", Switch: true, Label: "Short names of a device’s own LAN come first", Hint: "Each device can decide otherwise."},
	{Name: "query-log", Switch: true, Label: "Devices log questions", Hint: "Names are hashed."},
	{Name: "ttl", Label: "Seconds for which others may remember a device’s name", Hint: "1 to 60."},
	{Name: "alias-days", Label: "Days for which a former name still leads to its device", Hint: "0 to 365."},
	{Name: "rebinding-allowed", Label: "Names that may answer with private addresses", Hint: "Separated by spaces."},
	{Name: "portal-url", Label: "Address to notice captive portals with", Hint: "http://, answers 204 on an open network. Empty: nothing is asked."},
}

// dnsPages are the tabs that dnsView is for: the templates with these names.
var dnsPages = map[string]string{"dns": "/network/dns", "dnsroutes": "/network/dns/routes", "dnstry": "/network/dns/try"}

type dnsView struct {
	Change      bool
	Suffix      string
	Records     []recordView
	Routes      []routeView
	Nameservers string // one a line
	Search      string
	Aliases     []aliasView
	Wildcards   []string
	Switches    []dnsOption
	Values      []dnsOption
	Types       []string
	Devices     []deviceView

	Preview *previewView // on the page that tries a name
	// The form that came back, and what is wrong with it.
	Form, Problem string
	Record        recordView
	Outside       bool
	RouteSuffix   string
	RouteServers  string
}

type recordView struct {
	ID, Name, Type, Value string
	TTL                   int
}

type routeView struct {
	Suffix      string
	Nameservers []string
}

type aliasView struct {
	Name, Device string
	Until        stamp
}

// previewView is the form of the preview and its result.
type previewView struct {
	Name, Type, From string
	Types            []string
	Devices          []deviceView
	Asked            string
	Result           string // in words
	Good             bool
	Answers, Steps   []string
	Problem          string
}

// The three pages of DNS: names and records, routes and resolvers, and trying a name.
func (c *Console) dns(v *visit) error { return c.dnsPage(v, http.StatusOK, "dns", dnsView{}) }
func (c *Console) dnsRoutes(v *visit) error {
	return c.dnsPage(v, http.StatusOK, "dnsroutes", dnsView{})
}

func (c *Console) dnsTry(v *visit) error {
	p, err := c.preview(v)
	if err != nil {
		return hide(err)
	}
	return c.dnsPage(v, http.StatusOK, "dnstry", dnsView{Preview: &p})
}

// dnsPage draws one of the pages; view has the form that came back, if any.
func (c *Console) dnsPage(v *visit, status int, name string, view dnsView) error {
	d, err := c.ops.ShowDNS(v.ctx(), v.actor)
	if err != nil {
		return hide(err)
	}
	view.Change = v.actor.May("dns.edit")
	view.Suffix, view.Types = clean(d.Suffix), dns.RecordTypes
	for _, r := range d.Records {
		view.Records = append(view.Records, recordView{clean(r.ID), clean(ops.UnicodeDomain(r.Name)), clean(r.Type), clean(r.Value), r.TTL})
	}
	for _, r := range d.Routes {
		servers := serverLines(r.Nameservers)
		if len(servers) == 0 {
			servers = []string{"each device’s own nameservers"}
		}
		view.Routes = append(view.Routes, routeView{clean(r.Suffix), cleanAll(servers)})
	}
	for _, a := range d.Aliases {
		view.Aliases = append(view.Aliases, aliasView{clean(a.Name), clean(a.Device), c.stamp(a.Until)})
	}
	view.Wildcards = cleanAll(d.Wildcards)
	if view.Form != "nameservers" {
		view.Nameservers = asTyped(serverLines(d.Nameservers))
	}
	if view.Form != "search" {
		view.Search = asTyped(d.Search)
	}
	for _, o := range dnsOptions {
		if i := slices.IndexFunc(ops.DNSOptions, func(set ops.Option) bool { return set.Name == o.Name }); i >= 0 {
			o.Value = clean(ops.DNSOptions[i].Value(d.DNS))
		}
		if view.Form == "options" {
			o.Value = clean(cut(v.r.PostForm.Get(o.Name), 2000))
		}
		o.On = o.Value == "on"
		if o.Switch {
			view.Switches = append(view.Switches, o)
		} else {
			view.Values = append(view.Values, o)
		}
	}
	return c.render(v, status, name, view)
}

// previewDNS is the preview alone, for live typing.
func (c *Console) previewDNS(v *visit) error {
	p, err := c.preview(v)
	if err != nil {
		return hide(err)
	}
	if !v.partial() {
		return v.redirect(localPath("/network/dns/try?" + v.r.URL.Query().Encode()))
	}
	return c.fragment(v, "dnstry", "preview", p)
}

// preview reads the question from the address.
func (c *Console) preview(v *visit) (previewView, error) {
	q := v.r.URL.Query()
	p := previewView{
		Name: strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("name")), 255), ""),
		Type: strings.ToUpper(q.Get("type")), From: q.Get("from"), Types: append(slices.Clone(dns.RecordTypes), "HTTPS"),
	}
	if !slices.Contains(p.Types, p.Type) {
		p.Type = ""
	}
	list, err := c.ops.Devices(ops.Passive(v.ctx()), v.actor, ops.DeviceQuery{Limit: 200})
	if err != nil {
		return p, err
	}
	for _, d := range list.Devices {
		p.Devices = append(p.Devices, c.deviceView(d))
	}
	if p.Name == "" {
		return p, nil
	}
	if !idPattern.MatchString(p.From) {
		p.From = ""
	}
	a, err := c.ops.Preview(ops.Passive(v.ctx()), v.actor, ops.PreviewQuery{Name: p.Name, Type: p.Type, From: p.From})
	p.Name = clean(p.Name)
	switch {
	case errors.Is(err, ops.ErrNotFound):
		p.Problem = "That device is not there any more."
		return p, nil
	case errors.Is(err, ops.ErrInvalid):
		p.Problem = problemText(err)
		return p, nil
	case err != nil:
		return p, err
	}
	for _, rr := range a.Answers[:min(len(a.Answers), 12)] {
		p.Answers = append(p.Answers, clean(strings.ReplaceAll(rr, "\t", " ")))
	}
	p.Asked = clean(a.Name)
	for _, step := range a.Steps[:min(len(a.Steps), 13)] {
		if step.Stage != "question" {
			p.Steps = append(p.Steps, clean(step.Text))
		}
	}
	switch {
	case a.Rcode == "":
		p.Result = "It is asked elsewhere."
	case a.Rcode == "NXDOMAIN":
		p.Result = "There is no such name."
	case len(a.Answers) == 0 && a.Rcode == "NOERROR":
		p.Result = "The name exists, without a record of this type."
	case len(a.Answers) == 0:
		p.Result = "No answer: " + clean(a.Rcode) + "."
	default:
		p.Good = true
	}
	return p, nil
}

// problemText is the text of an error that a form shows, "" for an error of another
// kind.
func problemText(err error) string {
	var text string
	switch {
	case errors.Is(err, ops.ErrInvalid), errors.Is(err, ops.ErrTooOften):
		text = err.Error()
	case errors.Is(err, ops.ErrTaken):
		text = strings.TrimSuffix(err.Error(), ": "+ops.ErrTaken.Error())
	default:
		return ""
	}
	r := []rune(strings.ToValidUTF8(text, ""))
	if len(r) > 0 {
		text = strings.ToUpper(string(r[:1])) + string(r[1:min(len(r), 400)])
	}
	return strings.TrimSuffix(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text), ".") + "."
}

// editDNS makes a change and leads back, or shows the form again.
func (c *Console) editDNS(v *visit, name string, e ops.DNSEdit, view dnsView) error {
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EditDNS{DNSEdit: e})
	if view.Problem = problemText(err); errors.Is(err, ops.ErrNotFound) {
		view.Problem = "That is not there any more."
	}
	switch {
	case view.Problem != "":
		return c.dnsPage(v, http.StatusUnprocessableEntity, name, view)
	case err != nil:
		return err
	}
	return v.redirect(dnsPages[name] + "?done=dns")
}

func (c *Console) addRecord(v *visit) error {
	f := v.r.PostForm
	r := ops.NewRecord{DNSRecord: api.DNSRecord{Name: strings.TrimSpace(f.Get("name")), Type: f.Get("type"), Value: f.Get("value")}, Outside: f.Get("outside") == "1"}
	view := dnsView{Form: "record", Record: recordView{Name: clean(r.Name), Type: clean(r.Type), Value: clean(r.Value)}, Outside: r.Outside}
	if text := strings.TrimSpace(f.Get("ttl")); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 86400 {
			view.Problem = "The time to remember is 1 to 86,400 seconds."
			return c.dnsPage(v, http.StatusUnprocessableEntity, "dns", view)
		}
		r.TTL, view.Record.TTL = n, n
	}
	return c.editDNS(v, "dns", ops.DNSEdit{AddRecord: &r}, view)
}

func (c *Console) removeRecord(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	return c.editDNS(v, "dns", ops.DNSEdit{RemoveRecord: &ops.RecordMatch{ID: id}}, dnsView{Form: "records"})
}

func (c *Console) addRoute(v *visit) error {
	f := v.r.PostForm
	r := api.DNSRoute{Suffix: strings.TrimSpace(f.Get("suffix")), Nameservers: parseServers(f.Get("nameservers"))}
	return c.editDNS(v, "dnsroutes", ops.DNSEdit{AddRoute: &r}, dnsView{Form: "route", RouteSuffix: clean(r.Suffix), RouteServers: cut(f.Get("nameservers"), 2000)})
}

func (c *Console) removeRoute(v *visit) error {
	suffix := v.r.PostForm.Get("suffix")
	return c.editDNS(v, "dnsroutes", ops.DNSEdit{RemoveRoute: &suffix}, dnsView{Form: "routes"})
}

func (c *Console) setNameservers(v *visit) error {
	l := parseServers(v.r.PostForm.Get("nameservers"))
	return c.editDNS(v, "dnsroutes", ops.DNSEdit{Nameservers: &l}, dnsView{Form: "nameservers", Nameservers: strings.Join(serverLines(l), "\n")})
}

func (c *Console) setSearch(v *visit) error {
	l := lines(v.r.PostForm.Get("search"))
	return c.editDNS(v, "dnsroutes", ops.DNSEdit{Search: &l}, dnsView{Form: "search", Search: strings.Join(l, "\n")})
}

func (c *Console) setDNSOptions(v *visit) error {
	f := v.r.PostForm
	options := map[string]string{}
	for _, o := range dnsOptions {
		options[o.Name] = strings.TrimSpace(f.Get(o.Name))
		if o.Switch && options[o.Name] != "on" {
			options[o.Name] = "off"
		}
	}
	return c.editDNS(v, "dnsroutes", ops.DNSEdit{Options: options}, dnsView{Form: "options"})
}

func (c *Console) removeAlias(v *visit) error {
	name := v.r.PostForm.Get("name")
	return c.editDNS(v, "dns", ops.DNSEdit{RemoveAlias: &name}, dnsView{Form: "aliases"})
}

// serverLines are nameservers as the forms have them: the address and, after spaces,
// where its host is.
func serverLines(list []api.Nameserver) []string {
	out := []string{}
	for _, n := range list {
		out = append(out, strings.Join(append([]string{n.Address}, n.Bootstrap...), " "))
	}
	return out
}

// parseServers reads a form's.
func parseServers(text string) []api.Nameserver {
	out := []api.Nameserver{}
	for _, l := range lines(text) {
		if f := strings.FieldsFunc(l, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }); len(f) > 0 {
			out = append(out, api.Nameserver{Address: f[0], Bootstrap: f[1:]})
		}
	}
	return out
}

// lines are the lines that are not empty.
func lines(text string) []string {
	out := []string{}
	for l := range strings.Lines(cut(text, 8000)) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}
