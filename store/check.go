package store

import (
	"context"
	"fmt"
	"strings"
)

// Check reads all that is stored and calls report for each thing that is not
// as this package states it, in words for the owner. It returns an error only
// where it cannot go on: a read fails or ctx ends. It sees one state of the
// file and holds a read transaction until it has read that; then, while it
// looks at the pages of the file, writes wait.
func (s *Store) Check(ctx context.Context, report func(fault string)) error {
	err := s.View(func(tx *Tx) error {
		c := &checker{Tx: tx, ctx: ctx, report: report}
		for _, check := range checks {
			if err := check(c); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err == nil {
		err = s.checkFile(report)
	}
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

// checkFile holds the file to bbolt's own rules: every page is reachable once
// or free, and keys are in order. bbolt compares with its list of free pages,
// which is the writer's alone.
func (s *Store) checkFile(report func(fault string)) error {
	btx, err := s.bolt.Begin(true)
	if err != nil {
		return closedError(err)
	}
	for fault := range btx.Check() {
		report("database file: " + fault.Error())
	}
	return btx.Rollback()
}

// checks are the parts of Check. Who stores a new kind of thing adds a part
// that holds every record of it to what its file says.
var checks = []func(*checker) error{
	checkKeys,
	checkNumbers,
	checkStream,
	checkEvents,
	checkEventIDs,
	checkHeads,
	checkMemberships,
	checkRoomServers,
	checkStays,
	checkOutbox,
	checkDestinations,
	checkInbox,
	checkServerTxns,
	checkJoins,
	checkRoomRecords,
	checkThreads,
	checkWords,
	checkPurges,
	checkCitations,
	checkSlots,
	checkSnapshots,
	checkSigningKeys,
	checkServerKeys,
	checkHosts,
	checkBackoffs,
	checkAccounts,
	checkTokens,
	checkInvitations,
	checkProfiles,
	checkDeviceLists,
	checkDeviceKeys,
	checkOneTimeKeys,
	checkCrossSigning,
	checkBackups,
	checkToDevice,
	checkRemoteDevices,
	checkAccountData,
	checkReceipts,
	checkUnread,
	checkPushers,
	checkAliases,
	checkMedia,
}

// A checker is what a part of Check works with.
type checker struct {
	*Tx
	ctx    context.Context
	report func(string)
	seen   int
}

// faultf reports a fault.
func (c *checker) faultf(format string, args ...any) { c.report(fmt.Sprintf(format, args...)) }

// each calls fn for every key of a bucket that begins with prefix. It ends
// when the context does.
func (c *checker) each(name bucketName, prefix []byte, fn func(rest, value []byte)) error {
	return c.scan(name, prefix, nil, func(rest, value []byte) (bool, error) {
		if c.seen++; c.seen%256 == 0 && c.ctx.Err() != nil {
			return false, c.ctx.Err()
		}
		fn(rest, value)
		return true, nil
	})
}

// eachOf calls fn for every key of a kind in a bucket whose keys begin with a
// room's or user's number; rest is the key behind the kind. It leaves out the
// records of rooms that are half purged, but for memberships, which stay whole.
func (c *checker) eachOf(name bucketName, kind byte, fn func(num uint32, rest, value []byte)) error {
	return c.each(name, nil, func(key, value []byte) {
		if len(key) >= 5 && key[4] == kind {
			if name == bucketRoom && kind != roomMember && c.purging(RoomNum(u32(key))) {
				return
			}
			fn(u32(key), key[5:], value)
		}
	})
}

// Kinds of keys, by bucket; those of number 0 stand apart.
var keyKinds = map[bucketName]struct{ kinds, zero string }{
	bucketEvent: {kinds: string([]byte{regionAside, regionTimeline, regionHead})},
	bucketState: {kinds: string([]byte{stateCitation, stateSlot, stateRecord, stateCounter})},
	bucketRoom: {
		kinds: string([]byte{
			roomMember, roomReceipt, roomReceiptAt, roomRelation, roomThread, roomWords, roomRedaction, roomHistory, roomHistoryAt, roomUnread, roomAlias, roomServer,
		}),
		zero: string([]byte{aliasRoom, publishedRoom, purgedRoom}),
	},
	bucketUser: {
		kinds: string([]byte{
			userAccount, userDevice, userToken, userProfile, userData, userDataAt, userRoom, userRoomAt, userFilter,
			userPresence, userDeviceKeys, userOneTimeKey, userOneTimeKeyID, userGivenKeys, userFallbackKey, userCrossSigning,
			userSignature, userSignedAt, userBackup, userBackupKey, userToDevice, userTxn, userPusher, userDevicesLatest,
		}),
		zero: string([]byte{userDevicesAt, tokenUser, loginToken, registrationToken, pusherUser, uiaSession}),
	},
}

// firstKinds are the kinds of keys of the buckets whose keys begin with one.
var firstKinds = map[bucketName]string{
	bucketRemote: string([]byte{
		remoteBackoff, remoteHost, remoteVerifyKey, remoteInbox, remoteJoin, remoteTxn, remoteOutbox, remoteBehind, remoteRoom,
		remoteRoomLeft, remoteDeviceList, remoteDevice, remoteStaleDevices, remoteMessages,
	}),
	bucketMedia: string([]byte{
		mediaRecord, mediaThumbnail, mediaUse, mediaReserved, mediaReservedBy, mediaPreview, mediaPreviewAt,
		mediaFetched, mediaFetchedAt, mediaFetchedSum,
	}),
}

// checkKeys holds each key to the kinds that schema.go knows, and those of the buckets
// by room and user to a number that is given.
func checkKeys(c *checker) error {
	for bucket, kinds := range firstKinds {
		err := c.each(bucket, nil, func(key, _ []byte) {
			if len(key) == 0 || strings.IndexByte(kinds, key[0]) < 0 {
				c.faultf("bucket %s: key %x is of no known kind", bucketTraits[bucket].name, key)
			}
		})
		if err != nil {
			return err
		}
	}
	for bucket, known := range keyKinds {
		name := bucketTraits[bucket].name
		numbers := byte(numberRoom)
		if bucket == bucketUser {
			numbers = numberUser
		}
		last := uint32(0)
		err := c.each(bucket, nil, func(key, _ []byte) {
			if len(key) < 5 {
				c.faultf("bucket %s: key %x is too short", name, key)
				return
			}
			kinds, num := known.kinds, u32(key)
			if num == 0 {
				kinds = known.zero
			} else if num != last && c.name(numbers, num) == "" {
				c.faultf("bucket %s: number %d stands for nothing", name, num)
			}
			last = num
			if strings.IndexByte(kinds, key[4]) < 0 {
				c.faultf("bucket %s: key %x is of no known kind", name, key)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkNumbers leads each number to its name and back.
func checkNumbers(c *checker) error {
	highest := c.in(bucketNumber).Sequence()
	return c.each(bucketNumber, nil, func(key, value []byte) {
		switch kind := key[0]; kind {
		case numberRoom, numberUser, numberServer:
			if len(value) != 4 || u32(value) == 0 || uint64(u32(value)) > highest {
				c.faultf("number of %s is %x", key[1:], value)
			} else if c.name(kind, u32(value)) != string(key[1:]) {
				c.faultf("number %d of %s leads back to %s", u32(value), key[1:], c.name(kind, u32(value)))
			}
		case numberRoom - 'a' + 'A', numberUser - 'a' + 'A', numberServer - 'a' + 'A':
			if len(key) != 5 || c.number(kind-'A'+'a', string(value)) != u32(key[1:]) {
				c.faultf("number key %x of %s does not lead back", key, value)
			}
		default:
			c.faultf("number key %x is of no known kind", key)
		}
	})
}

// checkStream resolves what each entry of the stream is about.
func checkStream(c *checker) error {
	newest := c.Tx.Position()
	return c.each(bucketStream, nil, func(key, value []byte) {
		change, err := readChange(key, value)
		if err != nil {
			c.faultf("%v", err)
			return
		}
		if change.Position > newest || change.Position == 0 {
			c.faultf("stream entry %d lies beyond the newest position %d", change.Position, newest)
		}
		if change.Room != 0 && c.RoomID(change.Room) == "" || change.User != 0 && c.UserID(change.User) == "" {
			c.faultf("stream entry %d: room %d or user %d is unknown", change.Position, change.Room, change.User)
		}
		switch change.Kind {
		case streamEvent:
			if c.get(bucketEvent, eventKey(change.Room, change.Event)) == nil {
				c.faultf("stream entry %d: event %d has no place in room %d", change.Position, change.Event, change.Room)
			}
		case streamMembership:
			if change.Room == 0 || change.User == 0 {
				c.faultf("stream entry %d: membership of user %d in room %d", change.Position, change.User, change.Room)
			}
		case streamOutbox:
			if c.ServerName(change.Server) == "" {
				c.faultf("stream entry %d: server %d is unknown", change.Position, change.Server)
			}
		case streamAccountData, streamReceipt, streamToDevice, streamDevices, streamProfile:
			if change.User == 0 {
				c.faultf("stream entry %d of kind %q names no user", change.Position, change.Kind)
			}
		default:
			c.faultf("stream entry %d is of no known kind %q", change.Position, change.Kind)
		}
	})
}

// checkSigningKeys looks for the server's secret and a key that signs.
func checkSigningKeys(c *checker) error {
	if _, err := c.Secret(); err != nil {
		c.faultf("%v", err)
	}
	if _, err := c.SigningKey(); err != nil {
		c.faultf("%v", err)
	}
	return nil
}
