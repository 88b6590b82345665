package ops

// The verbs of weft-server speak to the running server through a unix socket
// in the data directory, and open the data directory themselves when none
// runs. Admin is both: AdminHandler puts a Service's operations on the
// socket, adminClient calls them.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"weft/coord/audit"
	"weft/coord/datadir"
	"weft/coord/listen"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/peercred"
)

const adminSocket = "admin.sock"

// Admin is what the verbs of weft-server can do.
type Admin interface {
	CreateKey(ctx context.Context, c CreateKey) (KeyCreated, error)
	ListKeys(ctx context.Context) ([]store.Key, error)
	RevokeKey(ctx context.Context, id string) error
	ListDevices(ctx context.Context) ([]Device, error)
	ShowDevice(ctx context.Context, name string) (Device, error)
	RenameDevice(ctx context.Context, name, to string) (Device, error)
	DeleteDevice(ctx context.Context, name string) (Device, error)
	// ReplaceDevice deletes the device name and gives its name to the device by.
	ReplaceDevice(ctx context.Context, name, by string) (Device, error)
	SetDeviceDNS(ctx context.Context, name string, d DeviceDNS) (Device, error)
	DNS(ctx context.Context) (DNSInfo, error)
	EditDNS(ctx context.Context, e DNSEdit) (DNSInfo, error)
	PreviewName(ctx context.Context, q PreviewQuery) (Preview, error)
	Revocations(ctx context.Context) (Revocations, error)
	ListRelays(ctx context.Context) ([]RelayInfo, error)
	RemoveRelay(ctx context.Context, name string) (RelayInfo, error)
	LoginLink(ctx context.Context, user string) (string, error)
	// Audit, VerifyAudit and AuditHead are those of Service.
	Audit(ctx context.Context, w store.AuditFilter) ([]audit.Line, error)
	VerifyAudit(ctx context.Context, outside *audit.Head) (AuditReport, error)
	AuditHead(ctx context.Context) (audit.Head, error)
	// Snapshot writes a consistent copy of the database into the data directory
	// while everything goes on, and returns its path; the caller removes it.
	Snapshot(ctx context.Context) (string, error)
	Close() error
}

// startupWait is how long OpenAdmin waits for a process that has the data
// directory but not yet its socket, or no longer.
const startupWait = 5 * time.Second

// OpenAdmin returns a way to administer the network in data: through the
// running server, or by opening the directory when none runs.
func OpenAdmin(ctx context.Context, o Options) (Admin, error) {
	deadline := time.Now().Add(startupWait)
	for {
		c, err := dialAdmin(ctx, o.Data)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			if errors.Is(err, syscall.ENOTDIR) {
				return nil, fmt.Errorf("read the data directory %s: not a directory; name that of the server with --data DIR", o.Data)
			}
			return nil, fmt.Errorf("reach the running server: %w", listen.Cause(err))
		}
		s, err := OpenService(ctx, Options{Data: o.Data, Software: o.Software, Log: o.Log, Now: o.Now})
		if err == nil {
			return &directAdmin{s}, nil
		}
		if !errors.Is(err, datadir.ErrLocked) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// directAdmin works on a Service in this process.
type directAdmin struct{ s *Service }

func (a *directAdmin) Close() error { return a.s.Close() }

func (a *directAdmin) CreateKey(ctx context.Context, c CreateKey) (KeyCreated, error) {
	return Do(ctx, a.s, Root(), c)
}

func (a *directAdmin) ListKeys(ctx context.Context) ([]store.Key, error) {
	return a.s.Keys(ctx, Root(), 0)
}

func (a *directAdmin) RevokeKey(ctx context.Context, id string) error {
	_, err := Do(ctx, a.s, Root(), RevokeKey{id})
	return err
}

func (a *directAdmin) ListDevices(ctx context.Context) ([]Device, error) {
	list, err := a.s.Devices(ctx, Root(), DeviceQuery{})
	return append([]Device{}, list.Devices...), err
}

func (a *directAdmin) ShowDevice(ctx context.Context, name string) (Device, error) {
	return a.s.Device(ctx, Root(), name)
}

// change runs a command about the device that a person names.
func (a *directAdmin) change(ctx context.Context, name string, c func(cert.NodeID) Command[store.Node]) (Device, error) {
	id, err := a.s.DeviceToChange(ctx, Root(), name)
	if err != nil {
		return Device{}, err
	}
	n, err := Do(ctx, a.s, Root(), c(id))
	if err != nil {
		return Device{}, err
	}
	return a.s.View(n), nil
}

func (a *directAdmin) RenameDevice(ctx context.Context, name, to string) (Device, error) {
	return a.change(ctx, name, func(id cert.NodeID) Command[store.Node] { return RenameDevice{id, to} })
}

func (a *directAdmin) DeleteDevice(ctx context.Context, name string) (Device, error) {
	return a.change(ctx, name, func(id cert.NodeID) Command[store.Node] { return DeleteDevice{id} })
}

func (a *directAdmin) ReplaceDevice(ctx context.Context, name, by string) (Device, error) {
	old, err := a.s.DeviceToChange(ctx, Root(), name)
	if err != nil {
		return Device{}, err
	}
	return a.change(ctx, by, func(id cert.NodeID) Command[store.Node] { return ReplaceDevice{Old: old, By: id} })
}

func (a *directAdmin) SetDeviceDNS(ctx context.Context, name string, d DeviceDNS) (Device, error) {
	return a.change(ctx, name, func(id cert.NodeID) Command[store.Node] { return SetDeviceDNS{id, d} })
}

func (a *directAdmin) DNS(ctx context.Context) (DNSInfo, error) { return a.s.DNS(ctx) }

func (a *directAdmin) EditDNS(ctx context.Context, e DNSEdit) (DNSInfo, error) {
	if _, err := Do(ctx, a.s, Root(), EditDNS{e}); err != nil {
		return DNSInfo{}, err
	}
	return a.s.DNS(ctx)
}

func (a *directAdmin) PreviewName(ctx context.Context, q PreviewQuery) (Preview, error) {
	if q.From != "" {
		n, err := a.s.FindDevice(ctx, q.From)
		if err != nil {
			return Preview{}, err
		}
		q.From = n.ID.String()
	}
	return a.s.PreviewName(ctx, q)
}

func (a *directAdmin) Revocations(context.Context) (Revocations, error) {
	return a.s.Revocations(), nil
}

func (a *directAdmin) ListRelays(context.Context) ([]RelayInfo, error) {
	return a.s.RelayList(Root())
}

func (a *directAdmin) RemoveRelay(ctx context.Context, name string) (RelayInfo, error) {
	r, err := Do(ctx, a.s, Root(), RemoveRelay{name})
	if err != nil {
		return RelayInfo{}, err
	}
	return a.s.ViewRelay(r), nil
}

func (a *directAdmin) LoginLink(ctx context.Context, user string) (string, error) {
	path, err := Do(ctx, a.s, Root(), CreateLink{user})
	if err != nil {
		return "", err
	}
	return a.s.consoleBase() + path, nil
}

func (a *directAdmin) Audit(ctx context.Context, w store.AuditFilter) ([]audit.Line, error) {
	return a.s.Audit(ctx, Root(), w)
}

func (a *directAdmin) VerifyAudit(ctx context.Context, outside *audit.Head) (AuditReport, error) {
	return a.s.VerifyAudit(ctx, Root(), outside)
}

func (a *directAdmin) AuditHead(ctx context.Context) (audit.Head, error) {
	return a.s.AuditHead(ctx, Root())
}

func (a *directAdmin) Snapshot(ctx context.Context) (string, error) { return a.s.Snapshot(ctx, Root()) }

// socketPath returns a path for the socket that fits into a sockaddr, however
// long the data directory's is. done releases it after use.
func socketPath(data string) (path string, done func(), err error) {
	path = filepath.Join(data, adminSocket)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	d, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), adminSocket), func() { d.Close() }, nil
}

// ListenAdmin makes the socket. The caller holds the data directory's lock,
// so a socket that is there was left by a process that is gone.
func ListenAdmin(data string) (net.Listener, error) {
	path, done, err := socketPath(data)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	// The directory is 0700; the mode of the socket itself is a second bolt.
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the path may be gone from under us by then
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return l, nil
}

type peerKey struct{}

// PeerContext notes whether the process at the other end runs as our own user
// or root.
func PeerContext(ctx context.Context, c net.Conn) context.Context {
	ok := false
	if uc, is := c.(*net.UnixConn); is {
		uid, err := peercred.UID(uc)
		ok = err == nil && (uid == 0 || int(uid) == os.Geteuid())
	}
	return context.WithValue(ctx, peerKey{}, ok)
}

// adminRequest is the body of every call on the socket.
type adminRequest struct {
	Key  CreateKey     `json:"key"`
	Life time.Duration `json:"life"`
	Name string        `json:"name"`
	To   string        `json:"to"`

	DNS       DNSEdit      `json:"dns"`
	DeviceDNS DeviceDNS    `json:"device_dns"`
	Preview   PreviewQuery `json:"preview"`

	Audit store.AuditFilter `json:"audit"`
	Head  *audit.Head       `json:"head"`
}

func AdminHandler(s *Service) http.Handler {
	a := &directAdmin{s}
	calls := map[string]func(context.Context, adminRequest) (any, error){
		"keys/create": func(ctx context.Context, r adminRequest) (any, error) {
			r.Key.Life = r.Life
			return a.CreateKey(ctx, r.Key)
		},
		"keys/list":       func(ctx context.Context, r adminRequest) (any, error) { return a.ListKeys(ctx) },
		"keys/revoke":     func(ctx context.Context, r adminRequest) (any, error) { return struct{}{}, a.RevokeKey(ctx, r.Name) },
		"devices/list":    func(ctx context.Context, r adminRequest) (any, error) { return a.ListDevices(ctx) },
		"devices/show":    func(ctx context.Context, r adminRequest) (any, error) { return a.ShowDevice(ctx, r.Name) },
		"devices/rename":  func(ctx context.Context, r adminRequest) (any, error) { return a.RenameDevice(ctx, r.Name, r.To) },
		"devices/delete":  func(ctx context.Context, r adminRequest) (any, error) { return a.DeleteDevice(ctx, r.Name) },
		"devices/replace": func(ctx context.Context, r adminRequest) (any, error) { return a.ReplaceDevice(ctx, r.Name, r.To) },
		"devices/dns": func(ctx context.Context, r adminRequest) (any, error) {
			return a.SetDeviceDNS(ctx, r.Name, r.DeviceDNS)
		},
		"dns/show":      func(ctx context.Context, r adminRequest) (any, error) { return a.DNS(ctx) },
		"dns/edit":      func(ctx context.Context, r adminRequest) (any, error) { return a.EditDNS(ctx, r.DNS) },
		"dns/preview":   func(ctx context.Context, r adminRequest) (any, error) { return a.PreviewName(ctx, r.Preview) },
		"revocations":   func(ctx context.Context, r adminRequest) (any, error) { return a.Revocations(ctx) },
		"relays/list":   func(ctx context.Context, r adminRequest) (any, error) { return a.ListRelays(ctx) },
		"relays/remove": func(ctx context.Context, r adminRequest) (any, error) { return a.RemoveRelay(ctx, r.Name) },
		"audit/list":    func(ctx context.Context, r adminRequest) (any, error) { return a.Audit(ctx, r.Audit) },
		"audit/verify":  func(ctx context.Context, r adminRequest) (any, error) { return a.VerifyAudit(ctx, r.Head) },
		"audit/head":    func(ctx context.Context, r adminRequest) (any, error) { return a.AuditHead(ctx) },
		"snapshot":      func(ctx context.Context, r adminRequest) (any, error) { return a.Snapshot(ctx) },
		"login-link":    func(ctx context.Context, r adminRequest) (any, error) { return a.LoginLink(ctx, r.Name) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ok, _ := r.Context().Value(peerKey{}).(bool); !ok || r.Header.Get("Origin") != "" {
			writeJSON(w, http.StatusForbidden, fail(http.StatusForbidden, api.CodeUnauthorized, "only the server's own user may do this", ""))
			return
		}
		call, ok := calls[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok || r.Method != http.MethodPost {
			writeJSON(w, http.StatusNotFound, fail(http.StatusNotFound, api.CodeProtocol, "the running weft-server does not know this verb", "restart it with this version"))
			return
		}
		var req adminRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, api.MaxBody)).Decode(&req); err != nil {
			writeJSON(w, http.StatusBadRequest, fail(http.StatusBadRequest, api.CodeBadRequest, "unreadable request", ""))
			return
		}
		res, err := call(r.Context(), req)
		if err != nil {
			e := adminError(err)
			writeJSON(w, e.Status, e)
			return
		}
		writeJSON(w, http.StatusOK, res)
	})
}

// adminError carries an error over the socket whole: the caller is the owner.
func adminError(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrNotFound):
		return fail(http.StatusNotFound, api.CodeNotFound, err.Error(), "")
	case errors.Is(err, ErrTaken):
		return fail(http.StatusConflict, api.CodeConflict, err.Error(), "")
	case errors.Is(err, ErrInvalid):
		return fail(http.StatusBadRequest, api.CodeBadRequest, err.Error(), "")
	case errors.Is(err, ErrTooOften):
		return fail(http.StatusTooManyRequests, api.CodeTooMany, err.Error(), "")
	case errors.Is(err, store.ErrDiskFull):
		return fail(http.StatusServiceUnavailable, api.CodeUnavailable, store.ErrDiskFull.Error()+", nothing was changed", "make room on the file system of --data, then repeat; the server need not be restarted")
	}
	return fail(http.StatusInternalServerError, api.CodeInternal, err.Error(), "")
}

// adminClient calls a running server.
type adminClient struct{ http *http.Client }

func dialAdmin(ctx context.Context, data string) (*adminClient, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, done, err := socketPath(data)
		if err != nil {
			return nil, err
		}
		defer done()
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	c, err := dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	c.Close()
	return &adminClient{&http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

func (c *adminClient) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

func (c *adminClient) call(ctx context.Context, verb string, in adminRequest, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://weft-server/"+verb, bytes.NewReader(b))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("ask the running server: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 256<<20))
	if err != nil {
		return fmt.Errorf("ask the running server: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		e := &api.Error{Status: res.StatusCode}
		if json.Unmarshal(body, e) != nil || e.Message == "" {
			return fmt.Errorf("ask the running server: it answered %s", res.Status)
		}
		return e
	}
	return json.Unmarshal(body, out)
}

func (c *adminClient) CreateKey(ctx context.Context, nk CreateKey) (k KeyCreated, err error) {
	err = c.call(ctx, "keys/create", adminRequest{Key: nk, Life: nk.Life}, &k)
	return k, err
}

func (c *adminClient) ListKeys(ctx context.Context) (list []store.Key, err error) {
	err = c.call(ctx, "keys/list", adminRequest{}, &list)
	return list, err
}

func (c *adminClient) RevokeKey(ctx context.Context, id string) error {
	return c.call(ctx, "keys/revoke", adminRequest{Name: id}, &struct{}{})
}

func (c *adminClient) ListDevices(ctx context.Context) (list []Device, err error) {
	err = c.call(ctx, "devices/list", adminRequest{}, &list)
	return list, err
}

func (c *adminClient) ShowDevice(ctx context.Context, name string) (d Device, err error) {
	err = c.call(ctx, "devices/show", adminRequest{Name: name}, &d)
	return d, err
}

func (c *adminClient) RenameDevice(ctx context.Context, name, to string) (d Device, err error) {
	err = c.call(ctx, "devices/rename", adminRequest{Name: name, To: to}, &d)
	return d, err
}

func (c *adminClient) DeleteDevice(ctx context.Context, name string) (d Device, err error) {
	err = c.call(ctx, "devices/delete", adminRequest{Name: name}, &d)
	return d, err
}

func (c *adminClient) ReplaceDevice(ctx context.Context, name, by string) (d Device, err error) {
	err = c.call(ctx, "devices/replace", adminRequest{Name: name, To: by}, &d)
	return d, err
}

func (c *adminClient) SetDeviceDNS(ctx context.Context, name string, set DeviceDNS) (d Device, err error) {
	err = c.call(ctx, "devices/dns", adminRequest{Name: name, DeviceDNS: set}, &d)
	return d, err
}

func (c *adminClient) DNS(ctx context.Context) (i DNSInfo, err error) {
	err = c.call(ctx, "dns/show", adminRequest{}, &i)
	return i, err
}

func (c *adminClient) EditDNS(ctx context.Context, e DNSEdit) (i DNSInfo, err error) {
	err = c.call(ctx, "dns/edit", adminRequest{DNS: e}, &i)
	return i, err
}

func (c *adminClient) PreviewName(ctx context.Context, q PreviewQuery) (p Preview, err error) {
	err = c.call(ctx, "dns/preview", adminRequest{Preview: q}, &p)
	return p, err
}

func (c *adminClient) Revocations(ctx context.Context) (r Revocations, err error) {
	err = c.call(ctx, "revocations", adminRequest{}, &r)
	return r, err
}

func (c *adminClient) ListRelays(ctx context.Context) (list []RelayInfo, err error) {
	err = c.call(ctx, "relays/list", adminRequest{}, &list)
	return list, err
}

func (c *adminClient) RemoveRelay(ctx context.Context, name string) (r RelayInfo, err error) {
	err = c.call(ctx, "relays/remove", adminRequest{Name: name}, &r)
	return r, err
}

func (c *adminClient) LoginLink(ctx context.Context, user string) (link string, err error) {
	err = c.call(ctx, "login-link", adminRequest{Name: user}, &link)
	return link, err
}

func (c *adminClient) Audit(ctx context.Context, w store.AuditFilter) (page []audit.Line, err error) {
	err = c.call(ctx, "audit/list", adminRequest{Audit: w}, &page)
	return page, err
}

func (c *adminClient) VerifyAudit(ctx context.Context, outside *audit.Head) (r AuditReport, err error) {
	err = c.call(ctx, "audit/verify", adminRequest{Head: outside}, &r)
	return r, err
}

func (c *adminClient) AuditHead(ctx context.Context) (h audit.Head, err error) {
	err = c.call(ctx, "audit/head", adminRequest{}, &h)
	return h, err
}

func (c *adminClient) Snapshot(ctx context.Context) (path string, err error) {
	err = c.call(ctx, "snapshot", adminRequest{}, &path)
	return path, err
}

var (
	_ Admin = (*directAdmin)(nil)
	_ Admin = (*adminClient)(nil)
)
