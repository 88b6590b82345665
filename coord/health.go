package coord

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"weft/coord/console"
	"weft/coord/doctor"
	"weft/coord/install"
	"weft/coord/ops"
	"weft/overlay/fips"
)

// health is what the console cannot know of the server around it.
func (s *Server) health(context.Context) console.Health {
	data := s.Dir()
	h := console.Health{Facts: doctor.Facts{
		Now: s.now(), Built: BuildTime(), Version: s.Software(), Running: true, Inside: true, Data: data, Free: DiskFree(data), Backup: ops.LastBackup(data), FIPS: fips.Now(), Releases: s.releases,
	}}
	h.Database = databaseSize(data)
	if d, err := s.release.Current(); err != nil {
		if h.Facts.ReleaseErr = err; errors.Is(err, install.ErrNone) {
			h.Facts.ReleaseErr = fs.ErrNotExist
		}
	} else {
		h.Release, h.Facts.Release = d.Manifest, d.Version
	}
	h.Facts.Ports = append(h.Facts.Ports, doctor.Port{Flag: "--listen", Addr: s.tcp.Addr().String()})
	if s.plain != nil {
		h.Facts.Ports = append(h.Facts.Ports, doctor.Port{Flag: "--console", Addr: s.plain.Addr().String()})
	}
	if len(s.udp) > 0 { // the second port is for some answers only
		h.Facts.Ports = append(h.Facts.Ports, doctor.Port{Flag: "--stun", Addr: s.udp[0].LocalAddr().String()})
	}
	for _, u := range s.Network().URLs {
		c, trusted := s.siteCertificate(u)
		site := doctor.Site{URL: u, Own: !trusted, Trusted: trusted}
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err == nil {
			site.Expires = leaf.NotAfter
		}
		h.Facts.Sites = append(h.Facts.Sites, site)
	}
	return h
}

// databaseSize is how many bytes the database has on disk, its log included.
func databaseSize(data string) (n int64) {
	for _, name := range []string{"weft.db", "weft.db-wal"} {
		if fi, err := os.Stat(filepath.Join(data, name)); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// DiskFree returns how many bytes can be written in dir, -1 when that is unknown.
func DiskFree(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// BuildTime returns that of the commit of this program, zero when unknown.
func BuildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
					return t
				}
			}
		}
	}
	return time.Time{}
}

// countRelayed tells the service once a minute what the relay has sent on, until ctx ends.
func (s *Server) countRelayed(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		s.NoteRelayed(s.relay.Stats().Relayed())
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
