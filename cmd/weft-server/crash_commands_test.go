package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
	"weft/overlay/api"
	nodeclient "weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
)

// A server is killed at random moments while several programs and devices change
// everything there is. What was acknowledged is there after the next start, with a record
// each; what was not is there as a whole or not at all; the audit verifies; and every
// device finds in its config what the API says, under a version that never goes back.
//
// WEFT_CRASH_ROUNDS (default 3) is how often.
func TestCrashCommands(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS"))
	if rounds == 0 {
		rounds = 3
	}
	data := newData(t)
	server := startCrashing(t, data)
	defer func() { server.kill() }()
	made, err := server.client(t).CreateKey(t.Context(), ops.CreateKey{Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := cert.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{acked: map[string]string{"policy": ""}, records: map[string]int{}}
	m.compare(t, server) // what making the key left
	m.begun = true
	crews := make([]*crew, 4)
	for i := range crews {
		crews[i] = &crew{name: fmt.Sprintf("c%d", i), model: m, token: token, devices: map[string]*member{}}
	}
	for round := range rounds {
		c := server.client(t)
		dead := time.AfterFunc(rand.N(600*time.Millisecond), server.kill)
		var wg sync.WaitGroup
		for _, w := range crews {
			wg.Go(func() {
				for w.work(t.Context(), c, server.listen) {
				}
			})
		}
		wg.Wait()
		dead.Stop()
		server.kill()
		c.Close()
		server = startCrashing(t, data)
		m.compare(t, server)
		for _, w := range crews {
			w.compare(t, server)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d commands were acknowledged in %d rounds, %d were not and had been done, %d not", m.count, rounds, m.done, m.undone)
}

// crashing is a server in a process of its own.
type crashing struct {
	cmd    *exec.Cmd
	data   string
	listen string // address of its TLS listener
	once   sync.Once
}

func startCrashing(t *testing.T, data string) *crashing {
	t.Helper()
	cmd := exec.Command(os.Args[0], "serve", "--data", data, "--listen", "127.0.0.1:0", "--console", "off", "--stun", "off", "--url", "https://127.0.0.1:8443", "--log", "error", "--json")
	cmd.Env = append(os.Environ(), asServer+"=1")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &crashing{cmd: cmd, data: data}
	var ready struct{ Listen string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil || ready.Listen == "" {
		s.kill()
		t.Fatalf("the server does not start: %v: %s", err, complaints.String())
	}
	s.listen = ready.Listen
	return s
}

// kill ends it as a power cut would.
func (s *crashing) kill() { s.once.Do(func() { s.cmd.Process.Kill(); s.cmd.Wait() }) }

func (s *crashing) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Open(t.Context(), ops.Options{Data: s.data})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// model is what the server has to hold.
type model struct {
	begun bool
	mu    sync.Mutex // guards the following
	// acked is what was acknowledged, by what it is about: "device/ID" is its name,
	// "key/NOTE" its state, and so on; "" is not there. pending is what was asked for
	// and not answered.
	acked   map[string]string
	pending map[string]string
	records map[string]int // by operation
	unsure  map[string]int // records that there may be more
	seq     uint64         // of the last record that was counted

	count, done, undone int
}

// try notes what became of a command. It returns whether there may be more.
func (m *model) try(about, to, op string, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var refused *webapi.Problem
	var refusedNode *api.Error
	switch {
	case err == nil:
		m.acked[about] = to
		m.records[op]++
		m.count++
		return true
	case errors.As(err, &refused), errors.As(err, &refusedNode): // such as one rename too many
		return true
	}
	if m.pending == nil {
		m.pending, m.unsure = map[string]string{}, map[string]int{}
	}
	m.pending[about] = to
	m.unsure[op]++
	return false
}

// compare checks a server that has just started, and takes what it holds.
func (m *model) compare(t *testing.T, s *crashing) {
	t.Helper()
	c := s.client(t)
	defer c.Close()
	held, err := stateOf(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for about := range m.pending {
		if _, ok := m.acked[about]; !ok {
			m.acked[about] = ""
		}
	}
	for about, want := range m.acked {
		got := held[about]
		to, asked := m.pending[about]
		switch {
		case asked && got == to:
			m.done++
		case got != want:
			t.Errorf("%s is %q; acknowledged was %q, and asked for %q (%v)", about, got, want, to, asked)
		case asked:
			m.undone++
		}
	}
	if m.begun {
		for about, got := range held {
			if _, ok := m.acked[about]; !ok {
				t.Errorf("%s is %q, and nobody asked for it", about, got)
			}
		}
	}
	maps.Copy(m.acked, held)
	for about := range m.acked {
		if held[about] == "" && about != "policy" {
			delete(m.acked, about)
		}
	}
	m.pending = nil

	if r, err := c.VerifyAudit(t.Context(), nil); err != nil || r.Fault != nil {
		t.Errorf("the audit does not verify: %+v, %v", r, err)
	}
	counted := map[string]int{}
	for {
		page, err := c.Audit(t.Context(), store.AuditFilter{Oldest: true, Cursor: m.seq, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page {
			counted[l.Op]++
			m.seq = l.Seq
		}
		if len(page) < 1000 {
			break
		}
	}
	if m.begun {
		for _, op := range slices.Sorted(maps.Keys(counted)) {
			if n := counted[op]; n < m.records[op] || n > m.records[op]+m.unsure[op] {
				t.Errorf("%d records of %s; %d were acknowledged, and %d not answered", n, op, m.records[op], m.unsure[op])
			}
			delete(m.records, op)
		}
		for op, n := range m.records {
			t.Errorf("no record of %s; %d were acknowledged", op, n)
		}
	}
	m.records, m.unsure = map[string]int{}, nil
}

// stateOf is what the API says that there is.
func stateOf(ctx context.Context, c *client.Client) (map[string]string, error) {
	held := map[string]string{}
	devices, err := c.Devices(ctx, ops.DeviceQuery{})
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		held["device/"+d.ID.String()] = d.Name
	}
	keys, err := c.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Note != "" {
			held["key/"+k.Note] = k.State(time.Now())
		}
	}
	users, err := c.Users(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		if !u.Owner {
			held["user/"+u.Name] = "there"
		}
	}
	names, err := c.DNS(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range names.Records {
		held["record/"+strings.TrimSuffix(r.Name, "."+names.Suffix)] = r.Value
	}
	policy, err := c.Policy(ctx)
	held["policy"] = policy.Text
	return held, err
}

// crew changes things of its own.
type crew struct {
	name    string
	model   *model
	token   cert.Token
	n       int
	devices map[string]*member // by id
	keys    []string           // by note; ids beside them
	keyIDs  []string
	user    string
	record  string
}

// member is a device.
type member struct {
	key     *ecdsa.PrivateKey
	shown   tls.Certificate
	version api.Version // of the config that it has seen last
}

func (d *member) client(token cert.Token, listen string) (*nodeclient.Client, error) {
	roots, err := cert.NewServerRoots([]cert.Pin{token.Server}, nil)
	if err != nil {
		return nil, err
	}
	return nodeclient.New((&link.Dialer{
		URLs:     func() []string { return []string{"https://" + listen} },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &d.shown },
	}).Transport(), nil), nil
}

// fresh is a name that nothing has had.
func (w *crew) fresh() string { w.n++; return fmt.Sprintf("%s-%d", w.name, w.n) }

// work does one command, and says whether it was answered.
func (w *crew) work(ctx context.Context, c *client.Client, listen string) bool {
	id := ""
	for id = range w.devices {
		break
	}
	switch rand.IntN(9) {
	case 0:
		if len(w.devices) < 4 {
			return w.join(ctx, listen)
		}
		fallthrough
	case 1:
		if id != "" {
			name := w.fresh()
			_, err := c.EditDevice(ctx, id, ops.EditDevice{Name: &name})
			return w.model.try("device/"+id, name, "device.rename", err)
		}
		return w.join(ctx, listen)
	case 2:
		if id != "" {
			_, err := c.DeleteDevice(ctx, id)
			delete(w.devices, id)
			return w.model.try("device/"+id, "", "device.delete", err)
		}
		fallthrough
	case 3:
		note := w.fresh()
		k, err := c.CreateKey(ctx, ops.CreateKey{Note: note})
		if err == nil {
			w.keys, w.keyIDs = append(w.keys, note), append(w.keyIDs, k.ID)
		}
		return w.model.try("key/"+note, store.KeyGood, "key.create", err)
	case 4:
		if len(w.keys) > 0 {
			note, id := w.keys[0], w.keyIDs[0]
			w.keys, w.keyIDs = w.keys[1:], w.keyIDs[1:]
			_, err := c.RevokeKey(ctx, id)
			return w.model.try("key/"+note, store.KeyRevoked, "key.revoke", err)
		}
		fallthrough
	case 5:
		name := w.user
		if w.user = ""; name != "" {
			_, err := c.DeleteUser(ctx, ops.DeleteUser{Name: name})
			return w.model.try("user/"+name, "", "user.delete", err)
		}
		w.user = w.fresh()
		_, err := c.CreateUser(ctx, ops.CreateUser{Name: w.user})
		return w.model.try("user/"+w.user, "there", "user.create", err)
	case 6:
		name, e, value := w.record, ops.DNSEdit{RemoveRecord: &ops.RecordMatch{Name: w.record}}, ""
		if w.record = ""; name == "" {
			name, value = w.fresh(), "192.0.2.1"
			w.record, e = name, ops.DNSEdit{AddRecord: &ops.NewRecord{DNSRecord: api.DNSRecord{Name: name, Type: "A", Value: value}}}
		}
		_, err := c.EditDNS(ctx, e, nil)
		return w.model.try("record/"+name, value, "dns.edit", err)
	case 7:
		if w.name == "c0" { // there is one policy
			text := fmt.Sprintf(`{"rules":[{"from":["user:%s"],"to":["self"],"ports":["*"]}]}`, w.fresh())
			_, err := c.SetPolicy(ctx, text, nil)
			return w.model.try("policy", text, "policy.set", err)
		}
		fallthrough
	default:
		if d := w.devices[id]; d != nil {
			return w.fetch(ctx, d, listen)
		}
		return w.join(ctx, listen)
	}
}

func (w *crew) join(ctx context.Context, listen string) bool {
	d := &member{}
	var err error
	if d.key, err = cert.NewKey(); err != nil {
		panic(err)
	}
	if d.shown, err = cert.SelfSigned(d.key); err != nil {
		panic(err)
	}
	csr, err := cert.NewCSR(d.key)
	if err != nil {
		panic(err)
	}
	spki, err := cert.SPKI(&d.key.PublicKey)
	if err != nil {
		panic(err)
	}
	id, name := cert.NodeIDOf(w.token.Network.NetworkID(), spki).String(), w.fresh()
	c, err := d.client(w.token, listen)
	if err != nil {
		panic(err)
	}
	defer c.CloseIdleConnections()
	res, err := c.Join(ctx, api.JoinRequest{Protocol: api.Protocol, Secret: w.token.Secret, CSR: csr, Hostname: name})
	if err == nil {
		d.shown = tls.Certificate{Certificate: [][]byte{res.Certificate}, PrivateKey: d.key}
		d.version = res.Config.Version
		w.devices[id] = d
	}
	return w.model.try("device/"+id, name, "device.join", err)
}

// fetch has a device fetch its config.
func (w *crew) fetch(ctx context.Context, d *member, listen string) bool {
	c, err := d.client(w.token, listen)
	if err != nil {
		panic(err)
	}
	defer c.CloseIdleConnections()
	config, err := c.Config(ctx, api.Version{})
	if err == nil {
		d.version = config.Version
	}
	var refused *api.Error
	return err == nil || errors.As(err, &refused)
}

// compare checks what the crew's devices find.
func (w *crew) compare(t *testing.T, s *crashing) {
	t.Helper()
	for id, d := range w.devices {
		c, err := d.client(w.token, s.listen)
		if err != nil {
			t.Fatal(err)
		}
		config, err := c.Config(t.Context(), api.Version{})
		c.CloseIdleConnections()
		name := w.model.acked["device/"+id]
		switch {
		case err != nil:
			t.Errorf("device %s (%s): %v", id, name, err)
		case config.Self.Name != name:
			t.Errorf("device %s finds that it is %s; the API says %s", id, config.Self.Name, name)
		case config.Version.Epoch != d.version.Epoch || config.Version.N < d.version.N:
			t.Errorf("device %s has seen version %v, and finds %v", id, d.version, config.Version)
		}
	}
	// What was not answered may have been done.
	if w.model.acked["user/"+w.user] == "" {
		w.user = ""
	}
	if w.model.acked["record/"+w.record] == "" {
		w.record = ""
	}
}
