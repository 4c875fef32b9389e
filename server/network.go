package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/federation"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// What a connection to another server costs, in bytes, and which share of the
// memory and of the files that may be open they all may have.
const (
	memoryPerRemoteConn = 64 << 10
	remoteShare         = 8
	filesShare          = 4
	leastRemoteConns    = 16
	mostRemoteConns     = 256
)

// newNetwork returns the other servers, as the settings let us reach them.
func (s *Server) newNetwork(rooms *state.Rooms, memory *budget) (*remote.Network, error) {
	roots, err := readRoots(s.config.FederationCA)
	if err != nil {
		return nil, err
	}
	return remote.NewNetwork(remote.NetworkConfig{
		Store:    s.store,
		Key:      rooms.Key,
		Dial:     s.outside.dial,
		Roots:    roots,
		Notaries: s.config.TrustedKeyServers,
		MaxConns: maxRemoteConns(s.config.Memory, openFiles()),
		Budget:   memory.take,
		Log:      s.log,
	}), nil
}

// newJoiner returns what brings users into rooms of other servers.
func (s *Server) newJoiner(rooms *state.Rooms, memory *budget) *remote.Joiner {
	return remote.NewJoiner(remote.JoinerConfig{
		Network: s.network,
		Store:   s.store,
		Rooms:   rooms,
		Dir:     filepath.Join(s.store.Dir(), "joins"),
		Budget:  memory.take,
		Settle:  s.sender.Settle,
		Joined:  func(room matrix.RoomID) { s.federation.Joined(room) },
		LeftOut: func(ctx context.Context, room store.RoomNum, from matrix.ServerName, pdus []jsontext.Value, state bool) (int, error) {
			return s.federation.LeftOut(ctx, room, from, pdus, state)
		},
		Log: s.log,
	})
}

// readRoots returns the system's root certificates and those of a file; nil, which
// stands for the system's, where no file is named.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--federation-ca: %w", err)
	}
	roots, err := remote.SystemRoots()
	if err != nil {
		return nil, fmt.Errorf("root certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, usage("--federation-ca: %s holds no certificate in PEM form", file)
	}
	return roots, nil
}

// openFiles returns how many files and connections this process may have open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what systems give at least
	}
	return limit.Cur
}

// maxRemoteConns returns how many connections to other servers there may be.
func maxRemoteConns(memory Bytes, files uint64) int {
	byMemory := uint64(memory) / remoteShare / memoryPerRemoteConn
	return int(max(min(byMemory, files/filesShare, mostRemoteConns), leastRemoteConns))
}

// federationConfig returns the settings of the Server-Server API.
func (s *Server) federationConfig(rooms *state.Rooms, limits *api.Limiter, memory *budget) federation.Config {
	return federation.Config{
		Store:   s.store,
		Rooms:   rooms,
		Network: s.network,
		Media:   s.media,
		EDU: map[string]federation.Receive{
			"m.device_list_update": s.client.ReceiveDeviceList,
			"m.direct_to_device":   s.client.ReceiveToDevice,
			"m.presence":           s.client.ReceivePresence,
			"m.receipt":            s.client.ReceiveReceipts,
			"m.signing_key_update": s.client.ReceiveSigningKeys,
			"m.typing":             s.client.ReceiveTyping,
		},
		Profile: s.client.OwnProfile,

		OpenIDUser: s.client.OpenIDUser,
		Take:       memory.take,
		Version:    Version(),
		Limits:     limits,
		Log:        s.log,
	}
}
