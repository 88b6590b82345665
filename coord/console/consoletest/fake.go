// Package consoletest is a console.Backend in memory, for tests of the console
// and of whatever shows its pages. It follows the contract of the interface
// and keeps nothing on disk.
package consoletest

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/coord/console"
)

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,54}[a-z0-9])?$`)

// Backend is the fake. The zero value is not usable: see New.
type Backend struct {
	// constant after New, unless a test sets them before the first request
	Now     func() time.Time
	Net     console.Network
	Latency time.Duration // of every connection test
	Err     func(method string) error
	// Revocations and NotListed are those of console.DeviceList.
	Revocations, NotListed int

	// mu guards the following
	mu       sync.Mutex
	users    map[string]*user // by name
	links    map[console.Hash]string
	sessions map[console.Hash]console.Session
	devices  map[string]console.Device
	keys     map[string]console.Key
	tokens   map[string]string // token to key id
	subs     map[int]chan console.Event
	names    console.DNS // what is set, but for devices
	nextSub  int
	nextID   int
}

type user struct {
	console.User
	hash string
}

var _ console.Backend = (*Backend)(nil)

// New makes a network with one user "owner", who has no password yet.
func New() *Backend {
	b := &Backend{
		Now: time.Now,
		Net: console.Network{
			ID:         "4f1c0d2b9a8e7766554433221100ffee",
			Suffix:     "weft.internal",
			ServerURLs: []string{"https://203.0.113.7:8443"},
			Version:    "0.1.0",
		},
		Latency:  8400 * time.Microsecond,
		users:    make(map[string]*user),
		links:    make(map[console.Hash]string),
		sessions: make(map[console.Hash]console.Session),
		devices:  make(map[string]console.Device),
		keys:     make(map[string]console.Key),
		tokens:   make(map[string]string),
		subs:     make(map[int]chan console.Event),
	}
	b.names.Options = map[string]string{"ttl": "5", "alias-days": "14", "serve-stale": "on"}
	b.users["owner"] = &user{User: console.User{ID: "u1", Name: "owner", Owner: true}}
	return b
}

// NewLink makes a one-time sign-in link for owner and returns its path.
func (b *Backend) NewLink() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	token := console.NewToken()
	b.links[console.HashToken(token)] = "owner"
	return console.LinkPath(token)
}

// Put stores a device as it is and reports it as kind.
func (b *Backend) Put(kind console.EventKind, d console.Device) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.devices[d.ID] = d
	b.emitLocked(console.Event{Kind: kind, Device: d})
}

// SetOnline changes presence.
func (b *Backend) SetOnline(id string, online bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	if !ok {
		return
	}
	d.Online, d.LastSeen = online, b.Now()
	b.devices[id] = d
	kind := console.EventOffline
	if online {
		kind = console.EventOnline
	}
	b.emitLocked(console.Event{Kind: kind, Device: d})
}

// Join makes a device join with a token; it is offline at first.
func (b *Backend) Join(token, name, os string) (console.Device, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.keys[b.tokens[token]]
	if !ok || !k.Revoked.IsZero() || k.Used > 0 && !k.Reusable {
		return console.Device{}, console.ErrNotFound
	}
	now := b.Now()
	k.Used++
	k.LastUsed = now
	b.keys[k.ID] = k
	b.nextID++
	d := console.Device{
		ID: fmt.Sprintf("%032x", 0xa000+b.nextID), Name: name, FQDN: name + "." + b.Net.Suffix,
		IPv4: netip.AddrFrom4([4]byte{100, 64, 1, byte(b.nextID)}), IPv6: netip.MustParseAddr(fmt.Sprintf("fd3c:91f0:22aa::%x", 0x100+b.nextID)),
		User: "owner", Tags: k.Tags, Joined: now, LastSeen: now, Expires: now.Add(90 * 24 * time.Hour),
		Hostname: name, OS: os, Software: "0.1.0", KeyID: k.ID, Ephemeral: k.Ephemeral,
	}
	b.devices[d.ID] = d
	b.emitLocked(console.Event{Kind: console.EventJoined, Device: d})
	return d, nil
}

// Sample fills the network with a small household.
func (b *Backend) Sample() {
	now := b.Now()
	for i, s := range []struct {
		name, os string
		tags     []string
		online   bool
		ago      time.Duration
	}{
		{"kitchen-pi", "linux/arm64", []string{"device"}, true, 0},
		{"garage-door", "linux/arm", []string{"device", "sensor"}, true, 0},
		{"greenhouse", "linux/mipsle", []string{"device", "sensor"}, false, 42 * time.Minute},
		{"nas", "linux/amd64", []string{"device"}, true, 0},
		{"anna-laptop", "darwin/arm64", nil, true, 0},
		{"workbench", "windows/amd64", nil, false, 26 * time.Hour},
		{"weather-station", "linux/arm", []string{"device", "sensor"}, false, 19 * 24 * time.Hour},
	} {
		b.Put(console.EventJoined, console.Device{
			ID: fmt.Sprintf("%032x", 0x1d00f3a9b7c1+i*7919), Name: s.name, FQDN: s.name + ".weft.internal",
			IPv4: netip.AddrFrom4([4]byte{100, 64, 0, byte(7 + i)}), IPv6: netip.MustParseAddr(fmt.Sprintf("fd3c:91f0:22aa::%x", 7+i)),
			User: "owner", Tags: s.tags, Online: s.online, LastSeen: now.Add(-s.ago), Joined: now.Add(-time.Duration(40+i) * 24 * time.Hour),
			Expires: now.Add(time.Duration(61-i) * 24 * time.Hour), Relay: "home", Addr: fmt.Sprintf("198.51.100.%d:4%d511", 20+i, i),
			Hostname: s.name, OS: s.os, Software: "0.1.0",
		})
	}
}

// Subscribers says how many streams are open.
func (b *Backend) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

// SessionCount says how many sessions are stored.
func (b *Backend) SessionCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

// DropSessions deletes every session, as another server or the command line
// would.
func (b *Backend) DropSessions() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.sessions)
}

// State is everything that a form could change, for "nothing changed" tests.
func (b *Backend) State() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s []string
	for _, d := range b.devices {
		s = append(s, "device "+d.ID+" "+d.Name)
	}
	for _, k := range b.keys {
		s = append(s, fmt.Sprint("key ", k.ID, k.Revoked.IsZero()))
	}
	for id := range b.sessions {
		s = append(s, "session "+hex.EncodeToString(id[:]))
	}
	for id := range b.links {
		s = append(s, "link "+hex.EncodeToString(id[:]))
	}
	for _, u := range b.users {
		s = append(s, "user "+u.Name+u.hash)
	}
	s = append(s, fmt.Sprintf("names %+v", b.names))
	slices.Sort(s)
	return strings.Join(s, "\n")
}

func (b *Backend) fail(method string) error {
	if b.Err != nil {
		return b.Err(method)
	}
	return nil
}

func (b *Backend) emitLocked(e console.Event) {
	for id, ch := range b.subs {
		select {
		case ch <- e:
		default:
			close(ch)
			delete(b.subs, id)
		}
	}
}

// Network implements console.Backend.
func (b *Backend) Network(context.Context) console.Network {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.Net
	n.Devices = len(b.devices)
	return n
}

// Link implements console.Backend.
func (b *Backend) Link(_ context.Context, link console.Hash) (console.User, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, ok := b.links[link]
	if !ok {
		return console.User{}, console.ErrNotFound
	}
	return b.users[name].User, nil
}

// UseLink implements console.Backend.
func (b *Backend) UseLink(_ context.Context, link console.Hash, passwordHash string) (console.User, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, ok := b.links[link]
	if !ok {
		return console.User{}, console.ErrNotFound
	}
	u := b.users[name]
	u.hash = passwordHash
	b.dropLocked(u.ID, console.Hash{})
	return u.User, nil
}

// dropLocked deletes the sessions of a user but keep, and all links.
func (b *Backend) dropLocked(userID string, keep console.Hash) {
	for id, s := range b.sessions {
		if s.UserID == userID && id != keep {
			delete(b.sessions, id)
		}
	}
	clear(b.links)
}

// Login implements console.Backend.
func (b *Backend) Login(_ context.Context, name string) (console.User, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u, ok := b.users[strings.ToLower(name)]
	if !ok {
		return console.User{}, "", console.ErrNotFound
	}
	return u.User, u.hash, nil
}

// SetPassword implements console.Backend.
func (b *Backend) SetPassword(_ context.Context, userID, passwordHash string, keep console.Hash) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.users {
		if u.ID == userID {
			u.hash = passwordHash
			b.dropLocked(userID, keep)
			return nil
		}
	}
	return console.ErrNotFound
}

// CreateSession implements console.Backend.
func (b *Backend) CreateSession(_ context.Context, s console.Session) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[s.ID] = s
	return nil
}

// Session implements console.Backend.
func (b *Backend) Session(_ context.Context, id console.Hash) (console.Session, console.User, error) {
	if err := b.fail("Session"); err != nil {
		return console.Session{}, console.User{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.sessions[id]
	if !ok {
		return console.Session{}, console.User{}, console.ErrNotFound
	}
	for _, u := range b.users {
		if u.ID == s.UserID {
			return s, u.User, nil
		}
	}
	return console.Session{}, console.User{}, console.ErrNotFound
}

// TouchSession implements console.Backend.
func (b *Backend) TouchSession(_ context.Context, id console.Hash, seen time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.sessions[id]
	if !ok {
		return console.ErrNotFound
	}
	s.Seen = seen
	b.sessions[id] = s
	return nil
}

// Sessions implements console.Backend.
func (b *Backend) Sessions(_ context.Context, userID string) ([]console.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []console.Session
	for _, s := range b.sessions {
		if s.UserID == userID {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, c console.Session) int { return c.Seen.Compare(a.Seen) })
	return list, nil
}

// DeleteSession implements console.Backend.
func (b *Backend) DeleteSession(_ context.Context, userID string, id console.Hash) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.sessions[id]; !ok || s.UserID != userID {
		return console.ErrNotFound
	}
	delete(b.sessions, id)
	return nil
}

// DeleteOtherSessions implements console.Backend.
func (b *Backend) DeleteOtherSessions(_ context.Context, userID string, keep console.Hash) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.sessions {
		if s.UserID == userID && id != keep {
			delete(b.sessions, id)
		}
	}
	return nil
}

// Devices implements console.Backend.
func (b *Backend) Devices(_ context.Context, _ string, q console.DeviceQuery) (console.DeviceList, error) {
	if err := b.fail("Devices"); err != nil {
		return console.DeviceList{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	list := console.DeviceList{Revocations: b.Revocations, NotListed: b.NotListed}
	var match []console.Device
	for _, d := range b.devices {
		list.All++
		if d.Online {
			list.Online++
		}
		hay := strings.ToLower(strings.Join([]string{d.Name, d.FQDN, d.IPv4.String(), d.IPv6.String(), strings.Join(d.Tags, " "), d.OS}, " "))
		ok := (q.State == "" || (q.State == "online") == d.Online) && (q.KeyID == "" || q.KeyID == d.KeyID)
		for _, w := range strings.Fields(strings.ToLower(q.Text)) {
			ok = ok && strings.Contains(hay, w)
		}
		if ok {
			match = append(match, d)
		}
	}
	slices.SortFunc(match, func(x, y console.Device) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID))
	})
	list.Total = len(match)
	match = match[min(q.Offset, len(match)):]
	list.Devices = match[:min(q.Limit, len(match))]
	return list, nil
}

// Device implements console.Backend.
func (b *Backend) Device(_ context.Context, _, id string) (console.Device, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	if !ok {
		return d, fmt.Errorf("device %s: %w", id, console.ErrNotFound)
	}
	return d, nil
}

// RenameDevice implements console.Backend.
func (b *Backend) RenameDevice(_ context.Context, _, id, name string) (console.Device, error) {
	if err := b.fail("RenameDevice"); err != nil {
		return console.Device{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	if !ok {
		return d, console.ErrNotFound
	}
	if !label.MatchString(name) {
		return d, console.ErrInvalid
	}
	for _, o := range b.devices {
		if o.ID != id && o.Name == name {
			return d, console.ErrConflict
		}
	}
	d.Name, d.FQDN = name, name+"."+b.Net.Suffix
	b.devices[id] = d
	b.emitLocked(console.Event{Kind: console.EventRenamed, Device: d})
	return d, nil
}

// DeviceNamed implements console.Backend.
func (b *Backend) DeviceNamed(_ context.Context, _, name string) (console.Device, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.devices {
		if d.Name == name {
			return d, nil
		}
	}
	return console.Device{}, fmt.Errorf("device %s: %w", name, console.ErrNotFound)
}

// ReplaceDevice implements console.Backend.
func (b *Backend) ReplaceDevice(_ context.Context, _, id, old string) (console.Device, error) {
	if err := b.fail("ReplaceDevice"); err != nil {
		return console.Device{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	gone, there := b.devices[old]
	if !ok || !there {
		return d, console.ErrNotFound
	}
	if id == old {
		return d, console.ErrInvalid
	}
	delete(b.devices, old)
	b.emitLocked(console.Event{Kind: console.EventDeleted, Device: console.Device{ID: old, Name: gone.Name}})
	d.Name, d.FQDN = gone.Name, gone.FQDN
	b.devices[id] = d
	b.emitLocked(console.Event{Kind: console.EventRenamed, Device: d})
	return d, nil
}

// DeleteDevice implements console.Backend.
func (b *Backend) DeleteDevice(_ context.Context, _, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	if !ok {
		return console.ErrNotFound
	}
	delete(b.devices, id)
	b.emitLocked(console.Event{Kind: console.EventDeleted, Device: console.Device{ID: id, Name: d.Name}})
	return nil
}

// TestConnection implements console.Backend.
func (b *Backend) TestConnection(_ context.Context, _, id string) (console.ConnectionTest, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	if !ok {
		return console.ConnectionTest{}, console.ErrNotFound
	}
	if !d.Online {
		return console.ConnectionTest{}, console.ErrOffline
	}
	return console.ConnectionTest{Path: "relay", Relay: "home", Latency: b.Latency}, nil
}

// Keys implements console.Backend.
func (b *Backend) Keys(_ context.Context, _ string, limit int) ([]console.Key, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []console.Key
	for _, k := range b.keys {
		list = append(list, k)
	}
	slices.SortFunc(list, func(x, y console.Key) int {
		return cmp.Or(y.Created.Compare(x.Created), cmp.Compare(x.ID, y.ID))
	})
	return list[:min(limit, len(list))], nil
}

// Key implements console.Backend.
func (b *Backend) Key(_ context.Context, _, id string) (console.Key, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.keys[id]
	if !ok {
		return k, console.ErrNotFound
	}
	return k, nil
}

// PutKey stores a key as it is.
func (b *Backend) PutKey(k console.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys[k.ID] = k
}

// Token returns the token that CreateKey last made, "" if none.
func (b *Backend) Token(keyID string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for t, id := range b.tokens {
		if id == keyID {
			return t
		}
	}
	return ""
}

// CreateKey implements console.Backend. Its tokens are as long as real ones.
func (b *Backend) CreateKey(_ context.Context, userID string, nk console.NewKey) (console.Key, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nextID++
	clean := strings.NewReplacer("-", "x", "_", "y")
	token := "weft1" + clean.Replace(console.NewToken()+console.NewToken()+console.NewToken()+console.NewToken())
	k := console.Key{
		ID: fmt.Sprintf("k%06x", 0x3f00+b.nextID*17), Note: nk.Note, Reusable: nk.Reusable, Ephemeral: nk.Ephemeral,
		Tags: nk.Tags, Created: b.Now(), Expires: b.Now().Add(nk.Life), User: "owner",
	}
	b.keys[k.ID] = k
	b.tokens[token] = k.ID
	return k, token, nil
}

// RevokeKey implements console.Backend.
func (b *Backend) RevokeKey(_ context.Context, _, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.keys[id]
	if !ok {
		return console.ErrNotFound
	}
	if k.Revoked.IsZero() {
		k.Revoked = b.Now()
	}
	b.keys[id] = k
	return nil
}

// Subscribe implements console.Backend.
func (b *Backend) Subscribe(string) (<-chan console.Event, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := make(chan console.Event, 64)
	id := b.nextSub
	b.nextSub++
	b.subs[id] = ch
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, id)
	}
}
