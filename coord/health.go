package coord

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"weft/coord/console"
	"weft/coord/doctor"
	"weft/coord/install"
	"weft/coord/ops"
	"weft/overlay/fips"
	"weft/overlay/report"
)

// health returns what the console shows about the server and cannot find out itself.
func (s *Server) health(context.Context) console.Health {
	data := s.Dir()
	h := console.Health{Facts: doctor.Facts{
		Now: s.now(), Built: report.BuildTime(), Version: s.Software(), Running: true, Inside: true, Data: data, Free: report.DiskFree(data), Backup: ops.LastBackup(data), FIPS: fips.Now(), Releases: s.releases,
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
	if len(s.udp) > 0 { // the second port only sends some of the answers
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

// databaseSize returns the size of the database on disk in bytes, with its write-ahead log.
func databaseSize(data string) (n int64) {
	for _, name := range []string{"weft.db", "weft.db-wal"} {
		if fi, err := os.Stat(filepath.Join(data, name)); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// countRelayed passes the number of bytes that the relay has forwarded to the service, once a
// minute until ctx ends.
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
