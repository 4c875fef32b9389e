package remote

import (
	"crypto/x509"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// haveRoots sees to it that there are root certificates to check servers with. A
// system that has none, such as an image of nothing but this binary, gets those that
// browsers trust; they take 0.4 MiB, and nothing where they are not needed. It runs
// before the first connection.
var haveRoots = sync.OnceFunc(func() {
	system, err := x509.SystemCertPool()
	if err == nil && !system.Equal(x509.NewCertPool()) {
		return
	}
	x509.SetFallbackRoots(bundledRoots())
})

// bundledRoots are the root certificates that come with the binary.
func bundledRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil: // a test sees to it that there is none
		case root.Constraint == nil:
			pool.AddCert(cert)
		default:
			pool.AddCertWithConstraint(cert, root.Constraint)
		}
	}
	return pool
}

// SystemRoots returns a copy of the root certificates that servers are checked
// with, for those who know further ones.
func SystemRoots() (*x509.CertPool, error) {
	haveRoots()
	return x509.SystemCertPool()
}
