package outboxtest

import "testing"

var tests = []struct {
	name string
	test func(*testing.T, Adapter)
}{
	{"TestWriteIsSeenByEveryProcessAtOnce", TestWriteIsSeenByEveryProcessAtOnce},
	{"TestReadsAndWritesAreLinearizable", TestReadsAndWritesAreLinearizable},
	{"TestOrderOfSteps", TestOrderOfSteps},
	{"TestTransactionThatTouchesNothingTellsNobody", TestTransactionThatTouchesNothingTellsNobody},
	{"TestFailedCommitRemovesTheFence", TestFailedCommitRemovesTheFence},
	{"TestFailedTouchedRollsBack", TestFailedTouchedRollsBack},
	{"TestUnknownOutcomeKeepsFenceAndRows", TestUnknownOutcomeKeepsFenceAndRows},
	{"TestRequireFence", TestRequireFence},
	{"TestWriteWithoutSharedTier", TestWriteWithoutSharedTier},
	{"TestLostFenceIsMadeUpForByTheBump", TestLostFenceIsMadeUpForByTheBump},
	{"TestFailedBumpIsDeliveredByARelay", TestFailedBumpIsDeliveredByARelay},
	{"TestLateFence", TestLateFence},
	{"TestCallerLeaves", TestCallerLeaves},
	{"TestLargeTransactionFencesFamilies", TestLargeTransactionFencesFamilies},
	{"TestWriterCrashes", TestWriterCrashes},
	{"TestWriterCrashesAfterALateCommit", TestWriterCrashesAfterALateCommit},
	{"TestStrangersWritesAreSeenSoon", TestStrangersWritesAreSeenSoon},
	{"TestTwoRelaysLoseNothing", TestTwoRelaysLoseNothing},
	{"TestRowsOfALivingWriterAreLeftToIt", TestRowsOfALivingWriterAreLeftToIt},
	{"TestDeliveredRowsAreForgotten", TestDeliveredRowsAreForgotten},
	{"TestCloseForgets", TestCloseForgets},
	{"TestBacklogIsDeliveredInFamilies", TestBacklogIsDeliveredInFamilies},
	{"TestWhatIsNoTagStandsInNobodysWay", TestWhatIsNoTagStandsInNobodysWay},
	{"TestRecoveryDrainsTheOutbox", TestRecoveryDrainsTheOutbox},
	{"TestBacklogOfARelay", TestBacklogOfARelay},
	{"TestWriteWithoutRelay", TestWriteWithoutRelay},
	{"TestTwoStores", TestTwoStores},
	{"TestBulkWritesReachAnswersOfOneTag", TestBulkWritesReachAnswersOfOneTag},
	{"TestWaitingTransactionsReachAnswersOfOneTag", TestWaitingTransactionsReachAnswersOfOneTag},
	{"TestEnormousValuesStandInNothingsWay", TestEnormousValuesStandInNothingsWay},
	{"TestAJoinerThatDiesLeavesNothingStale", TestAJoinerThatDiesLeavesNothingStale},
	{"TestConsumerThatLeaves", TestConsumerThatLeaves},
	{"TestPoisonedRowHoldsNothingUp", TestPoisonedRowHoldsNothingUp},
}

// Run runs every test of the package.
func Run(t *testing.T, a Adapter) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, a) })
	}
}
