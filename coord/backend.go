package coord

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/coord/console"
	"weft/coord/store"
	"weft/overlay/cert"
)

// backend is what the console sees of the service. A user sees that user's
// own devices and keys, and nothing says whether others exist.
type backend struct{ s *Service }

var _ console.Backend = (*backend)(nil)

// consoleError says the store's errors in the console's words.
func consoleError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %w", console.ErrNotFound, err)
	case errors.Is(err, ErrTaken):
		return fmt.Errorf("%w: %w", console.ErrConflict, err)
	case errors.Is(err, ErrInvalid):
		return fmt.Errorf("%w: %w", console.ErrInvalid, err)
	case errors.Is(err, ErrTooOften):
		return &console.Problem{Kind: console.ErrInvalid, Text: err.Error()}
	case errors.Is(err, store.ErrDiskFull):
		return fmt.Errorf("%w: %w", console.ErrDiskFull, err)
	}
	return err
}

func (b *backend) read(ctx context.Context, f func(*store.Reader) error) error {
	return consoleError(b.s.store.Read(ctx, f))
}

func (b *backend) write(ctx context.Context, f func(*store.Tx) error) error {
	return consoleError(b.s.store.Write(ctx, f))
}

func (b *backend) Network(context.Context) console.Network {
	n := b.s.index.info()
	_, all := b.s.index.counts("")
	return console.Network{ID: n.ID.String(), Suffix: b.s.suffix, ServerURLs: n.URLs, Version: b.s.software, Devices: all}
}

func userOf(u store.User) console.User { return console.User{ID: u.ID, Name: u.Name, Owner: u.Owner} }

func (b *backend) Link(ctx context.Context, link console.Hash) (console.User, error) {
	var u store.User
	err := b.read(ctx, func(r *store.Reader) (err error) { u, err = r.Link(b.s.network, link, b.s.now()); return err })
	return userOf(u), err
}

func (b *backend) UseLink(ctx context.Context, link console.Hash, passwordHash string) (console.User, error) {
	var u store.User
	err := b.write(ctx, func(tx *store.Tx) (err error) {
		if u, err = tx.UseLink(b.s.network, link, b.s.now()); err != nil {
			return err
		}
		return tx.SetPassword(b.s.network, u.ID, passwordHash, [32]byte{})
	})
	return userOf(u), err
}

func (b *backend) Login(ctx context.Context, name string) (console.User, string, error) {
	var u store.User
	err := b.read(ctx, func(r *store.Reader) (err error) { u, err = r.UserByName(b.s.network, name); return err })
	return userOf(u), u.Password, err
}

func (b *backend) SetPassword(ctx context.Context, userID, passwordHash string, keep console.Hash) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.SetPassword(b.s.network, userID, passwordHash, keep) })
}

func (b *backend) CreateSession(ctx context.Context, s console.Session) error {
	row := store.Session{Hash: s.ID, UserID: s.UserID, Created: s.Created, Seen: s.Seen, Agent: printable(s.Agent, 200)}
	if s.Addr.IsValid() {
		row.Addr = s.Addr.String()
	}
	return b.write(ctx, func(tx *store.Tx) error { return tx.CreateSession(b.s.network, row) })
}

func sessionOf(s store.Session) console.Session {
	addr, _ := netip.ParseAddr(s.Addr) // "" is none
	return console.Session{ID: s.Hash, UserID: s.UserID, Created: s.Created, Seen: s.Seen, Agent: s.Agent, Addr: addr}
}

func (b *backend) Session(ctx context.Context, id console.Hash) (console.Session, console.User, error) {
	var s store.Session
	var u store.User
	err := b.read(ctx, func(r *store.Reader) (err error) { s, u, err = r.Session(b.s.network, id); return err })
	return sessionOf(s), userOf(u), err
}

func (b *backend) TouchSession(ctx context.Context, id console.Hash, seen time.Time) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.TouchSession(b.s.network, id, seen) })
}

func (b *backend) Sessions(ctx context.Context, userID string) ([]console.Session, error) {
	var list []console.Session
	err := b.read(ctx, func(r *store.Reader) error {
		rows, err := r.Sessions(b.s.network, userID)
		for _, s := range rows {
			list = append(list, sessionOf(s))
		}
		return err
	})
	return list, err
}

func (b *backend) DeleteSession(ctx context.Context, userID string, id console.Hash) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.DeleteSession(b.s.network, userID, id) })
}

func (b *backend) DeleteOtherSessions(ctx context.Context, userID string, keep console.Hash) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.DeleteSessions(b.s.network, userID, keep) })
}

func (b *backend) deviceOf(n store.Node) console.Device {
	st := b.s.stateOf(n.ID, n.Seen)
	d := console.Device{
		ID: n.ID.String(), Name: n.Name, FQDN: n.Name + "." + b.s.suffix, IPv4: n.IPv4, IPv6: store.IPv6Of(b.s.ipv6, n.IPv4),
		User: n.User, Tags: n.Tags, Online: st.Online, LastSeen: st.Since, Joined: n.Created, Expires: n.Expires,
		Hostname: n.Hostname, OS: n.OS, Software: n.Software, KeyID: n.KeyID, Ephemeral: n.Ephemeral,
	}
	d.Unknown = b.s.unsure(n.ID)
	d.Wildcard, d.LANNames = n.Wildcard, lanNamesText(n.LANNames)
	d.Unaware = !b.s.index.knowsURLs(n.ID)
	if n.Expires.Sub(b.s.now()) < nodeLife/3 { // else nobody asks, and reading it takes a while
		if c, err := cert.ParseNode(b.s.network, n.Certificate); err == nil {
			d.Issued = c.NotBefore
		}
	}
	for _, a := range b.s.aliasInfos(n.ID) {
		d.Aliases = append(d.Aliases, console.DNSAlias{Name: a.Name, Until: a.Until})
	}
	if st.Online {
		d.Relay = b.s.relayLabel(st.Relay)
	}
	if st.Addr.IsValid() {
		d.Addr = st.Addr.Unmap().String()
	}
	return d
}

// Devices pages through the database when nothing is selected, and looks at
// every device of the user when something is.
func (b *backend) Devices(ctx context.Context, userID string, q console.DeviceQuery) (console.DeviceList, error) {
	all, online := b.s.count(userID)
	list := console.DeviceList{All: all, Online: online, Unaware: b.s.index.unaware(userID), URLs: b.s.index.info().URLs}
	rev := b.s.Revocations()
	list.Revocations, list.NotListed = rev.Bytes*100/rev.Max, rev.Left
	q.Offset, q.Limit = max(q.Offset, 0), min(max(q.Limit, 1), 200)
	words := strings.Fields(strings.ToLower(q.Text))
	if len(words) == 0 && q.State == "" && q.KeyID == "" {
		list.Total = all
		err := b.read(ctx, func(r *store.Reader) error {
			rows, err := r.NodesPage(b.s.network, userID, q.Offset, q.Limit)
			for _, n := range rows {
				list.Devices = append(list.Devices, b.deviceOf(n))
			}
			return err
		})
		b.look(ctx, list.Devices)
		return list, err
	}
	err := b.read(ctx, func(r *store.Reader) error {
		return r.EachNode(b.s.network, userID, func(n store.Node) error {
			d := b.deviceOf(n)
			if !matches(d, q, words) {
				return nil
			}
			if list.Total >= q.Offset && len(list.Devices) < q.Limit {
				list.Devices = append(list.Devices, d)
			}
			list.Total++
			return nil
		})
	})
	b.look(ctx, list.Devices)
	return list, err
}

// look asks the silent ones of the devices on a page, and brings those up to date
// that were said to be online.
func (b *backend) look(ctx context.Context, page []console.Device) {
	var ids []cert.NodeID
	var at []int
	for i, d := range page {
		if id, err := cert.ParseNodeID(d.ID); err == nil && d.Online {
			ids, at = append(ids, id), append(at, i)
		}
	}
	b.s.look(ctx, ids)
	for i, id := range ids {
		st := b.s.stateOf(id, time.Time{})
		page[at[i]].Online, page[at[i]].LastSeen = st.Online, st.Since
	}
}

func matches(d console.Device, q console.DeviceQuery, words []string) bool {
	if q.KeyID != "" && d.KeyID != q.KeyID || q.State == "online" && !d.Online || q.State == "offline" && (d.Online || d.Unknown) {
		return false
	}
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join(append([]string{d.FQDN, d.IPv4.String(), d.IPv6.String(), d.OS}, d.Tags...), "\n"))
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

func (b *backend) Device(ctx context.Context, userID, id string) (console.Device, error) {
	n, err := b.device(ctx, userID, id)
	if err != nil {
		return console.Device{}, err
	}
	b.s.look(ctx, []cert.NodeID{n.ID})
	return b.deviceOf(n), nil
}

func (b *backend) device(ctx context.Context, userID, id string) (n store.Node, err error) {
	nodeID, err := parseID(id)
	if err != nil {
		return n, err
	}
	err = b.read(ctx, func(r *store.Reader) (err error) { n, err = r.Node(b.s.network, nodeID); return err })
	if err == nil {
		err = owned(userID)(n)
	}
	return n, consoleError(err)
}

func parseID(id string) (cert.NodeID, error) {
	nodeID, err := cert.ParseNodeID(id)
	if err != nil {
		return nodeID, console.ErrNotFound
	}
	return nodeID, nil
}

// owned refuses other users' devices as if they did not exist.
func owned(userID string) func(store.Node) error {
	return func(n store.Node) error {
		if n.UserID != userID {
			return ErrNotFound
		}
		return nil
	}
}

func (b *backend) RenameDevice(ctx context.Context, userID, id, name string) (console.Device, error) {
	nodeID, err := parseID(id)
	if err != nil {
		return console.Device{}, err
	}
	n, err := b.s.RenameDevice(ctx, nodeID, name, owned(userID))
	if errors.Is(err, ErrTaken) && !strings.HasPrefix(err.Error(), "name ") {
		return console.Device{}, dnsProblem(err) // not a device's: it says whose it is
	}
	if err != nil {
		return console.Device{}, consoleError(err)
	}
	return b.deviceOf(n), nil
}

func (b *backend) DeviceNamed(ctx context.Context, userID, name string) (console.Device, error) {
	n, err := b.s.findToChange(ctx, name)
	if err == nil {
		err = owned(userID)(n)
	}
	if err != nil {
		return console.Device{}, consoleError(err)
	}
	return b.deviceOf(n), nil
}

func (b *backend) ReplaceDevice(ctx context.Context, userID, id, old string) (console.Device, error) {
	nodeID, err := parseID(id)
	if err != nil {
		return console.Device{}, err
	}
	oldID, err := parseID(old)
	if err != nil {
		return console.Device{}, err
	}
	n, err := b.s.ReplaceDevice(ctx, oldID, nodeID, owned(userID))
	if err != nil {
		return console.Device{}, consoleError(err)
	}
	return b.deviceOf(n), nil
}

func (b *backend) DeleteDevice(ctx context.Context, userID, id string) error {
	nodeID, err := parseID(id)
	if err != nil {
		return err
	}
	_, err = b.s.DeleteDevice(ctx, nodeID, owned(userID))
	return consoleError(err)
}

func (b *backend) TestConnection(ctx context.Context, userID, id string) (console.ConnectionTest, error) {
	n, err := b.device(ctx, userID, id)
	if err != nil {
		return console.ConnectionTest{}, err
	}
	st, _ := b.s.presence.Get(n.ID)
	if !st.Online {
		return console.ConnectionTest{}, fmt.Errorf("%s: %w", n.Name, console.ErrOffline)
	}
	if st.Relay != b.s.auth.RelayID() {
		return console.ConnectionTest{}, fmt.Errorf("%s: %w: %s", n.Name, console.ErrElsewhere, b.s.relayLabel(st.Relay))
	}
	rtt, err := b.s.relay.get().Ping(ctx, b.s.network, n.ID)
	if err != nil {
		return console.ConnectionTest{}, fmt.Errorf("%s: %w: %w", n.Name, console.ErrOffline, err)
	}
	return console.ConnectionTest{Path: "relay", Relay: relayName, Latency: rtt}, nil
}

func keyOf(k store.Key) console.Key {
	return console.Key{
		ID: k.ID, Note: k.Note, Reusable: k.Reusable, Ephemeral: k.Ephemeral, Tags: k.Tags,
		Created: k.Created, Expires: k.Expires, Revoked: k.Revoked, Used: k.Uses, LastUsed: k.Used, User: k.User,
	}
}

func (b *backend) Keys(ctx context.Context, userID string, limit int) ([]console.Key, error) {
	rows, err := b.s.Keys(ctx, userID, limit)
	list := make([]console.Key, 0, len(rows))
	for _, k := range rows {
		list = append(list, keyOf(k))
	}
	return list, consoleError(err)
}

func (b *backend) Key(ctx context.Context, userID, id string) (console.Key, error) {
	k, err := b.s.Key(ctx, userID, id)
	return keyOf(k), consoleError(err)
}

func (b *backend) CreateKey(ctx context.Context, userID string, nk console.NewKey) (console.Key, string, error) {
	k, token, err := b.s.CreateKey(ctx, NewKey{
		UserID: userID, Note: nk.Note, Tags: nk.Tags, Reusable: nk.Reusable, Ephemeral: nk.Ephemeral, Life: nk.Life,
	})
	if err != nil {
		return console.Key{}, "", consoleError(err)
	}
	return keyOf(k), token.String(), nil
}

func (b *backend) RevokeKey(ctx context.Context, userID, id string) error {
	return consoleError(b.s.RevokeKey(ctx, userID, id))
}

func (b *backend) Subscribe(userID string) (<-chan console.Event, func()) {
	in, cancel := b.s.events.subscribe(userID)
	out := make(chan console.Event, 64)
	done := make(chan struct{})
	go func() { // ends with cancel, or when the hub drops the subscription
		defer close(out)
		for e := range in {
			ev := console.Event{Kind: console.EventKind(e.kind), Device: b.deviceOf(e.node)}
			if e.kind == eventDeleted {
				ev.Device = console.Device{ID: e.node.ID.String(), Name: e.node.Name}
			}
			select {
			case out <- ev:
			case <-done:
				return
			}
		}
	}()
	var once sync.Once
	return out, func() { once.Do(func() { close(done); cancel() }) }
}
