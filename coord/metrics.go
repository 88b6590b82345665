package coord

import (
	"crypto/x509"

	"weft/coord/metrics"
)

// Collectors returns what the server counts, for package metrics.
func (s *Server) Collectors() []metrics.Collector {
	return []metrics.Collector{
		s.requests.Collect, metrics.Relay(s.relay.Stats),
		metrics.Gauge("weft_server_devices", "Devices of the network.", "state", func() map[string]float64 {
			all, online := s.CountDevices()
			return map[string]float64{"online": float64(online), "offline": float64(all - online)}
		}),
		metrics.Gauge("weft_server_relays", "Standalone relays.", "state", func() map[string]float64 {
			all, online := s.CountRelays()
			return map[string]float64{"online": float64(online), "offline": float64(all - online)}
		}),
		metrics.Gauge("weft_server_followers", "Open pages of the console that receive events about devices.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Followers())}
		}),
		metrics.Gauge("weft_server_revocation_list_bytes", "Length of the revocation list.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Revocations().Bytes)}
		}),
		metrics.Gauge("weft_server_revocation_list_max_bytes", "Maximum length of the revocation list. From half full on new certificates are valid for a shorter time; from 7/8 full on no device can join.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Revocations().Max)}
		}),
		metrics.Gauge("weft_server_revocations_left_out", "Revoked certificates for which the revocation list has no room. Above 0, relays refuse them only while they reach the server.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Revocations().Left)}
		}),
		metrics.Gauge("weft_server_certificate_expiry_timestamp_seconds", "When the certificate of the public site ends.", "", func() map[string]float64 {
			c, _ := s.siteCertificate(s.Network().URLs[0])
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				return nil
			}
			return map[string]float64{"": float64(leaf.NotAfter.Unix())}
		}),
	}
}
