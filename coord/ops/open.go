package ops

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"weft/coord/ca"
	"weft/coord/datadir"
	"weft/coord/policy"
	"weft/coord/presence"
	"weft/coord/store"
	"weft/coord/webhook"
	"weft/overlay/cert"
	"weft/overlay/filelock"
)

// Defaults of a new network.
const (
	DefaultIPv4   = "100.64.0.0/10"
	DefaultSuffix = "weft.internal"
	firstUser     = "admin"
	nodeLife      = 90 * 24 * time.Hour
	renewAfter    = 66 // percent of a certificate's life
)

// ErrNoNetwork means that there is no network in the data directory yet.
var ErrNoNetwork = errors.New("no network here yet; start it with: weft-server serve --data DIR")

// Options configure OpenService. The settings URLs, STUN, IPv4 and Suffix are stored with the
// network; their zero values leave the stored ones as they are.
type Options struct {
	Data     string // the data directory
	Create   bool   // make the network if there is none
	URLs     []string
	STUN     []string // host:port
	IPv4     netip.Prefix
	Suffix   string
	Software string        // version of weft-server
	NodeLife time.Duration // usual life of node certificates; 0 for 90 days
	LockWait time.Duration // how long to wait for another process to release the data directory
	Log      *slog.Logger
	Now      func() time.Time // the server's clock; nil means time.Now

	// For fault injection: see store.Options.
	BeforeCommit    func() error
	BeforeStatement func(query string) error
}

var suffixPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// OpenService locks the data directory and opens the network in it, or makes one. The caller has
// to Close the service.
func OpenService(ctx context.Context, o Options) (s *Service, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if !o.Create {
		if _, err := os.Stat(filepath.Join(o.Data, "weft.db")); err != nil {
			return nil, fmt.Errorf("open %s: %w", o.Data, ErrNoNetwork)
		}
	}
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := datadir.Lock(ctx, o.Data, o.LockWait)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			filelock.Release(lock)
		}
	}()
	if o.Create {
		sweepRestores(o.Data)
	}
	st, err := store.Open(ctx, store.Options{Path: filepath.Join(o.Data, "weft.db"), Log: o.Log, BeforeCommit: o.BeforeCommit, BeforeStatement: o.BeforeStatement, Seal: func(tx *store.Tx, notes []any) error { return s.seal(tx, notes) }, Written: func(rows []store.Rows) { s.lists.wrote(rows) }})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			st.Close()
		}
	}()
	var n store.Network
	err = st.Read(ctx, func(r *store.Reader) (err error) { n, err = r.Network(); return err })
	isNew := errors.Is(err, store.ErrNotFound)
	if err != nil && !isNew || isNew && !o.Create {
		if isNew {
			err = fmt.Errorf("open %s: %w", o.Data, ErrNoNetwork)
		}
		return nil, err
	}
	auth, err := ca.Open(filepath.Join(o.Data, "ca"), isNew, o.Now())
	if err != nil {
		return nil, err
	}
	if isNew {
		n, err = makeNetwork(ctx, st, auth, o)
	} else if n.ID != auth.ID {
		err = fmt.Errorf("open %s: the network CA in it belongs to network %s, but the database to network %s; put the right ca directory back", o.Data, auth.ID, n.ID)
	} else {
		n, err = updateNetwork(ctx, st, auth, n, o)
	}
	if err != nil {
		return nil, err
	}
	pol, err := policy.Stored(n.Policy)
	if err != nil {
		return nil, err
	}
	s = &Service{
		releaseKey: func() []byte { return nil },

		data: o.Data, software: o.Software, life: o.NodeLife, log: o.Log, now: o.Now,
		lock: lock, auth: auth, store: st, network: n.ID, ipv4: n.IPv4, ipv6: n.IPv6, suffix: n.Suffix,
		started: o.Now(), created: isNew, found: n.CRLNumber, settlesSince: o.Now(),
		followed: n.N, index: newIndex(n, pol), presence: presence.New(), relays: newRelaySessions(), notify: make(chan struct{}, 1), requests: newAsks(),
	}
	s.events = newHub(s.index)
	s.hooks = newHooks(webhook.Sender{Agent: "weft-server/" + o.Software, Network: s.prefixes()})
	err = st.Read(ctx, func(r *store.Reader) error {
		known, err := r.DNS(n.ID)
		if err != nil {
			return err
		}
		s.names.Store(&known)
		hooks, err := r.Webhooks(n.ID)
		if err != nil {
			return err
		}
		s.hooks.load(hooks)
		auditing, err := readAuditSettings(r, n.ID)
		if err != nil {
			return err
		}
		s.auditing.Store(auditing)
		return s.index.load(r)
	})
	if err == nil {
		err = s.loadSignIn(ctx)
	}
	if err == nil {
		err = s.openList(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (o *Options) check() error {
	if o.Data == "" {
		return errors.New("no data directory given")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NodeLife == 0 {
		o.NodeLife = nodeLife
	}
	for _, u := range o.URLs {
		if err := cert.CheckURL(u); err != nil {
			return Invalid("%v", err)
		}
	}
	if len(o.URLs) > 8 {
		return Invalid("%d server addresses are given, and at most 8 are possible", len(o.URLs))
	}
	if o.Suffix != "" && (len(o.Suffix) > 100 || !suffixPattern.MatchString(o.Suffix)) {
		return Invalid("suffix %q: want a DNS name in lower case such as %s", o.Suffix, DefaultSuffix)
	}
	if o.IPv4.IsValid() && (!o.IPv4.Addr().Is4() || o.IPv4.Bits() < 8 || o.IPv4.Bits() > 30 || o.IPv4 != o.IPv4.Masked()) {
		return Invalid("address range %s: want an IPv4 prefix of 8 to 30 bits, such as %s", o.IPv4, DefaultIPv4)
	}
	return nil
}

// checkOwnName refuses a suffix that the server's own host name is below: devices have to
// resolve that name before they are connected.
func (o *Options) checkOwnName(suffix string, urls, stun []string) error {
	if host := coveredHost(suffix, hostNames(urls, stun)); host != "" {
		return fmt.Errorf("suffix %s: it covers the server's own name %s, which devices have to resolve before they are connected; choose another, such as net.%s", suffix, host, suffix)
	}
	return nil
}

// makeNetwork makes the network, its first revocation list and its owner at the first start.
func makeNetwork(ctx context.Context, st *store.Store, auth *ca.Authorities, o Options) (store.Network, error) {
	if !o.IPv4.IsValid() {
		o.IPv4 = netip.MustParsePrefix(DefaultIPv4)
	}
	if o.Suffix == "" {
		o.Suffix = DefaultSuffix
	}
	if err := o.checkOwnName(o.Suffix, o.URLs, o.STUN); err != nil {
		return store.Network{}, err
	}
	now := o.Now()
	n := store.Network{
		ID: auth.ID, Created: now, Epoch: newEpoch(), N: 1, ConfigN: 1,
		IPv4: o.IPv4, IPv6: newULA(), Suffix: o.Suffix, URLs: o.URLs, STUN: o.STUN,
		CRLNumber: uint64(max(1, now.Unix())),
	}
	var err error
	if n.CRL, err = auth.Network.SignCRL(n.CRLNumber, nil, time.Time{}, now); err != nil {
		return n, err
	}
	return n, st.Write(ctx, func(tx *store.Tx) error {
		if err := tx.CreateNetwork(n); err != nil {
			return err
		}
		return tx.CreateUser(n.ID, store.User{ID: newID(), Name: firstUser, Owner: true, Kind: store.Person, Role: string(RoleOwner), Created: now})
	})
}

// updateNetwork stores the settings with which the server was started, if they differ from those
// of the network, and records the change in the audit.
func updateNetwork(ctx context.Context, st *store.Store, auth *ca.Authorities, n store.Network, o Options) (store.Network, error) {
	old := n
	if o.URLs != nil {
		n.URLs = o.URLs
	}
	if o.STUN != nil {
		n.STUN = o.STUN
	}
	if o.Suffix != "" {
		n.Suffix = o.Suffix
	}
	if o.IPv4.IsValid() {
		n.IPv4 = o.IPv4
	}
	if slices.Equal(n.URLs, old.URLs) && slices.Equal(n.STUN, old.STUN) && n.Suffix == old.Suffix && n.IPv4 == old.IPv4 {
		return n, nil
	}
	if err := o.checkOwnName(n.Suffix, n.URLs, n.STUN); err != nil {
		return n, err
	}
	err := st.Write(ctx, func(tx *store.Tx) error {
		if n.IPv4 != old.IPv4 {
			err := tx.EachListed(n.ID, store.NodePage{Limit: 1}, func(store.Node) error {
				return fmt.Errorf("address range %s: this network has devices in %s already", n.IPv4, old.IPv4)
			})
			if err != nil {
				return err
			}
		}
		c, err := tx.SetNetwork(n)
		n.N, n.ConfigN = c, c
		if !slices.Equal(n.URLs, old.URLs) {
			n.URLsN = c
		}
		if err != nil {
			return err
		}
		return appendAudit(tx, n.ID, auth, o.Now(), []record{{
			actor: System(), op: opNetworkConfigure.Name, target: target{kind: "network", id: n.ID.String()}, at: o.Now(), before: startedWith(old), after: startedWith(n),
		}})
	})
	return n, err
}

// startedWith returns these settings as the value of an audit record.
func startedWith(n store.Network) any {
	return struct {
		URLs   []string     `json:"urls"`
		STUN   []string     `json:"stun"`
		Suffix string       `json:"suffix"`
		IPv4   netip.Prefix `json:"ipv4"`
	}{n.URLs, n.STUN, n.Suffix, n.IPv4}
}

func newEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])>>11 | 1 // at most 53 bits, which JSON numbers have in every language
}

// newULA returns a random unique local prefix (RFC 4193).
func newULA() netip.Prefix {
	b := [16]byte{0: 0xfd}
	rand.Read(b[1:6])
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}
