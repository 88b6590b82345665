package console

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DNS is what is set about names in the whole network.
type DNS struct {
	Suffix      string
	Records     []DNSRecord
	Routes      []DNSRoute
	Nameservers []string // address and, after spaces, where its host is
	Search      []string
	Aliases     []DNSAlias
	Wildcards   []string
	Options     map[string]string // by the names of dnsOptions
}

// DNSRecord is one record, its name in full.
type DNSRecord struct {
	ID, Name, Type, Value string
	TTL                   int // seconds, 0 for 300
}

// DNSRoute sends a suffix to nameservers; none are each device's own.
type DNSRoute struct {
	Suffix      string
	Nameservers []string // as in DNS
}

// DNSAlias is a former name that still leads to its device.
type DNSAlias struct {
	Name, Device string
	Until        time.Time
}

// NewDNSRecord asks for a record.
type NewDNSRecord struct {
	DNSRecord
	Outside bool // of another zone, and that is meant
}

// DNSEdit is one change; one field is set.
type DNSEdit struct {
	AddRecord    *NewDNSRecord
	RemoveRecord string // id
	AddRoute     *DNSRoute
	RemoveRoute  string    // suffix
	Nameservers  *[]string // all of them
	Search       *[]string // all of them
	Options      map[string]string
	RemoveAlias  string // name
}

// NamePreview is what a name will answer, and why.
type NamePreview struct {
	Name    string
	Rcode   string // "" when a nameserver is asked
	Answers []string
	Steps   []string
}

// Problem is an ErrInvalid, ErrConflict or ErrNotFound that says to people what
// is wrong.
type Problem struct {
	Kind error
	Text string
}

func (p *Problem) Error() string { return p.Text }
func (p *Problem) Unwrap() error { return p.Kind }

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

var recordTypes = []string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "PTR"}

type dnsView struct {
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

	Preview previewView
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

// previewView is the form of the preview and what came of it.
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

func (c *Console) dns(v *visit) error { return c.dnsPage(v, http.StatusOK, dnsView{}) }

// dnsPage draws the page; view has the form that came back, if any.
func (c *Console) dnsPage(v *visit, status int, view dnsView) error {
	d, err := c.backend.DNS(v.ctx(), v.user.ID)
	if err != nil {
		return err
	}
	view.Suffix, view.Types = clean(d.Suffix), recordTypes
	for _, r := range d.Records {
		view.Records = append(view.Records, recordView{clean(r.ID), clean(UnicodeDomain(r.Name)), clean(r.Type), clean(r.Value), r.TTL})
	}
	for _, r := range d.Routes {
		servers := r.Nameservers
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
		view.Nameservers = strings.Join(d.Nameservers, "\n")
	}
	if view.Form != "search" {
		view.Search = strings.Join(d.Search, "\n")
	}
	for _, o := range dnsOptions {
		o.Value = clean(d.Options[o.Name])
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
	if view.Preview, err = c.preview(v); err != nil {
		return err
	}
	return c.render(v, status, "dns", view)
}

// previewDNS is the preview alone, for live typing.
func (c *Console) previewDNS(v *visit) error {
	p, err := c.preview(v)
	if err != nil {
		return err
	}
	if !v.partial() {
		return v.redirect("/dns?" + v.r.URL.RawQuery)
	}
	return c.fragment(v, "dns", "preview", p)
}

// preview reads the question from the address.
func (c *Console) preview(v *visit) (previewView, error) {
	q := v.r.URL.Query()
	p := previewView{
		Name: strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("name")), 255), ""),
		Type: strings.ToUpper(q.Get("type")), From: q.Get("from"), Types: append(slices.Clone(recordTypes), "HTTPS"),
	}
	if !slices.Contains(p.Types, p.Type) {
		p.Type = ""
	}
	list, err := c.backend.Devices(Passive(v.ctx()), v.user.ID, DeviceQuery{Limit: 200})
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
	a, err := c.backend.PreviewName(v.ctx(), v.user.ID, p.From, p.Name, p.Type)
	p.Name = clean(p.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		p.Problem = "That device is not there any more."
		return p, nil
	case errors.Is(err, ErrInvalid):
		p.Problem = problemText(err)
		return p, nil
	case err != nil:
		return p, err
	}
	for _, rr := range a.Answers[:min(len(a.Answers), 12)] {
		p.Answers = append(p.Answers, clean(strings.ReplaceAll(rr, "\t", " ")))
	}
	p.Asked, p.Steps = clean(a.Name), cleanAll(a.Steps)
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

// problemText is what a page says about an error of the backend.
func problemText(err error) string {
	text := err.Error()
	if p, ok := errors.AsType[*Problem](err); ok {
		text = p.Text
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
func (c *Console) editDNS(v *visit, e DNSEdit, view dnsView) error {
	err := c.backend.EditDNS(v.ctx(), v.user.ID, e)
	if p, ok := errors.AsType[*Problem](err); ok {
		view.Problem = problemText(p)
		return c.dnsPage(v, http.StatusUnprocessableEntity, view)
	}
	if err != nil {
		return err
	}
	c.log.Info("dns settings changed", "form", view.Form, "user", v.user.Name)
	return v.redirect("/dns?done=dns")
}

func (c *Console) addRecord(v *visit) error {
	f := v.r.PostForm
	r := NewDNSRecord{DNSRecord: DNSRecord{Name: strings.TrimSpace(f.Get("name")), Type: f.Get("type"), Value: f.Get("value")}, Outside: f.Get("outside") == "1"}
	view := dnsView{Form: "record", Record: recordView{Name: clean(r.Name), Type: clean(r.Type), Value: clean(r.Value)}, Outside: r.Outside}
	if text := strings.TrimSpace(f.Get("ttl")); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 86400 {
			view.Problem = "The time to remember is 1 to 86,400 seconds."
			return c.dnsPage(v, http.StatusUnprocessableEntity, view)
		}
		r.TTL, view.Record.TTL = n, n
	}
	return c.editDNS(v, DNSEdit{AddRecord: &r}, view)
}

func (c *Console) removeRecord(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	return c.editDNS(v, DNSEdit{RemoveRecord: id}, dnsView{Form: "records"})
}

func (c *Console) addRoute(v *visit) error {
	f := v.r.PostForm
	r := DNSRoute{Suffix: strings.TrimSpace(f.Get("suffix")), Nameservers: lines(f.Get("nameservers"))}
	return c.editDNS(v, DNSEdit{AddRoute: &r}, dnsView{Form: "route", RouteSuffix: clean(r.Suffix), RouteServers: cut(f.Get("nameservers"), 2000)})
}

func (c *Console) removeRoute(v *visit) error {
	return c.editDNS(v, DNSEdit{RemoveRoute: v.r.PostForm.Get("suffix")}, dnsView{Form: "routes"})
}

func (c *Console) setNameservers(v *visit) error {
	l := lines(v.r.PostForm.Get("nameservers"))
	return c.editDNS(v, DNSEdit{Nameservers: &l}, dnsView{Form: "nameservers", Nameservers: strings.Join(l, "\n")})
}

func (c *Console) setSearch(v *visit) error {
	l := lines(v.r.PostForm.Get("search"))
	return c.editDNS(v, DNSEdit{Search: &l}, dnsView{Form: "search", Search: strings.Join(l, "\n")})
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
	return c.editDNS(v, DNSEdit{Options: options}, dnsView{Form: "options"})
}

func (c *Console) removeAlias(v *visit) error {
	return c.editDNS(v, DNSEdit{RemoveAlias: v.r.PostForm.Get("name")}, dnsView{Form: "aliases"})
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

// setDeviceDNS sets how one device answers and asks.
func (c *Console) setDeviceDNS(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	lan := v.r.PostForm.Get("lan-names")
	if !slices.Contains([]string{"default", "on", "off"}, lan) {
		return errBadForm
	}
	err = c.backend.SetDeviceDNS(v.ctx(), v.user.ID, id, v.r.PostForm.Get("wildcard") == "on", lan)
	if err != nil {
		return err
	}
	return v.redirect("/devices/" + url.PathEscape(id) + "?done=names")
}
