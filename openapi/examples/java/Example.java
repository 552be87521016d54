import chrononaut.ApiClient;
import chrononaut.ApiException;
import chrononaut.ApiResponse;
import chrononaut.api.UserApi;
import chrononaut.api.UserApi.APIChangeUserRequest;
import chrononaut.api.UserApi.APICreateUserRequest;
import chrononaut.api.UserApi.APIDeleteUserRequest;
import chrononaut.api.UserApi.APIDiffUserVersionsRequest;
import chrononaut.api.UserApi.APIGetUserRequest;
import chrononaut.api.UserApi.APIGetUserVersionAtRequest;
import chrononaut.api.UserApi.APIListUserVersionsRequest;
import chrononaut.api.UserApi.APIWriteUserRecordsRequest;
import chrononaut.model.BulkProblem;
import chrononaut.model.Diff;
import chrononaut.model.ItemProblem;
import chrononaut.model.NewUser;
import chrononaut.model.Operation;
import chrononaut.model.Problem;
import chrononaut.model.User;
import chrononaut.model.UserBulk;
import chrononaut.model.UserBulkChange;
import chrononaut.model.UserBulkCreate;
import chrononaut.model.UserBulkDelete;
import chrononaut.model.UserBulkItem;
import chrononaut.model.UserPatch;
import chrononaut.model.UserPriorVersion;
import chrononaut.model.UserVersion;
import chrononaut.model.UserVersions;
import chrononaut.model.UserWritten;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** A record and its history, by the client that openapi-generator generates. */
public final class Example {
    private static final ApiClient CLIENT = client();
    private static final UserApi USERS = new UserApi(CLIENT);

    private interface Call {
        void send() throws ApiException;
    }

    private static ApiClient client() {
        ApiClient client = new ApiClient();
        client.updateBaseUri(System.getenv("CHRONONAUT_URL"));
        client.setRequestInterceptor(
                request -> request.header("Authorization", "Bearer " + System.getenv("CHRONONAUT_TOKEN")));
        return client;
    }

    private static void same(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }

    /** A problem must be of this kind; a client decides by its status and its type. */
    private static void ofKind(int status, String type, Problem found) {
        same(status, found.getStatus());
        same(type, found.getType());
        System.out.println(found.getStatus() + " " + found.getType() + ": " + found.getDetail());
    }

    /** A request must be answered with a problem of this kind, whose document is returned. */
    private static String problem(int status, String type, Call call) throws Exception {
        try {
            call.send();
        } catch (ApiException error) {
            ofKind(status, type, CLIENT.getObjectMapper().readValue(error.getResponseBody(), Problem.class));
            return error.getResponseBody();
        }
        throw new AssertionError("expected " + status + " " + type);
    }

    private static User create(NewUser user, String reason) throws ApiException {
        return USERS.createUser(APICreateUserRequest.newBuilder().newUser(user).xChangeRationale(reason).build());
    }

    private static APIGetUserRequest get(String key) {
        return APIGetUserRequest.newBuilder().key(key).build();
    }

    /** A change, to which more may be added. */
    private static APIChangeUserRequest.Builder change(String key, UserPatch patch) {
        return APIChangeUserRequest.newBuilder().key(key).userPatch(patch);
    }

    /** All prior versions of a user, page by page. */
    private static List<UserPriorVersion> pages(String key) throws ApiException {
        List<UserPriorVersion> versions = new ArrayList<>();
        String cursor = null;
        do {
            UserVersions page = USERS.listUserVersions(
                    APIListUserVersionsRequest.newBuilder().key(key).limit(1).cursor(cursor).build());
            versions.addAll(page.getVersions());
            cursor = page.getNext();
        } while (cursor != null);
        return versions;
    }

    private static UserBulkItem creation(NewUser user) {
        return new UserBulkItem(new UserBulkCreate().operation(UserBulkCreate.OperationEnum.CREATE).record(user));
    }

    /** The change of a user, if it still has an ETag, or, without one, in any case. */
    private static UserBulkItem change(String key, UserPatch patch, String etag) {
        return new UserBulkItem(new UserBulkChange()
                .operation(UserBulkChange.OperationEnum.CHANGE)
                .key(key)
                .changes(patch)
                .ifMatch(etag));
    }

    private static UserBulkItem deletion(String key) {
        return new UserBulkItem(new UserBulkDelete().operation(UserBulkDelete.OperationEnum.DELETE).key(key));
    }

    private static APIWriteUserRecordsRequest.Builder writing(UserBulkItem... items) {
        return APIWriteUserRecordsRequest.newBuilder().userBulk(new UserBulk().items(List.of(items)));
    }

    /** Write several users in one transaction, all of them or none; the user is there, and had the stale ETag. */
    private static void writeMany(String key, String stale) throws Exception {
        String domain = ProcessHandle.current().pid() + "@example.com";
        NewUser guest = new NewUser().email("java-guest-" + domain).passwordHash("$argon2id$of-guest");
        NewUser fresh = new NewUser().email("java-new-" + domain).passwordHash("$argon2id$new");
        String leaving = create(guest, null).getKey();

        UserPatch patch = new UserPatch().name("Ada, Countess of Lovelace");
        APIWriteUserRecordsRequest.Builder bulk = writing(creation(fresh), change(key, patch, null), deletion(leaving));
        List<UserWritten> written =
                USERS.writeUserRecords(bulk.xChangeRationale("New term").build()).getItems();
        same(UserWritten.OperationEnum.CREATE, written.get(0).getOperation());
        same(key, written.get(1).getKey());
        same(leaving, written.get(2).getKey());
        same(null, written.get(2).getVersion());
        List<UserPriorVersion> versions = pages(key);
        UserPriorVersion last = versions.get(versions.size() - 1);
        same(Operation.UPDATE, last.getOperation());
        same(Map.of("change_rationale", "New term"), last.getChangeInfo().getExtra());

        APIWriteUserRecordsRequest failing =
                writing(deletion(written.get(0).getKey()), change(key, patch, stale), deletion(leaving)).build();
        String document = problem(409, "/problems/bulk-failed", () -> USERS.writeUserRecords(failing));
        List<ItemProblem> items =
                CLIENT.getObjectMapper().readValue(document, BulkProblem.class).getItems();
        same(List.of(1, 2), items.stream().map(ItemProblem::getIndex).toList());
        ofKind(412, "/problems/precondition-failed", items.get(0).getProblem());
        ofKind(410, "/problems/deleted", items.get(1).getProblem());
    }

    /** Make a user, change it, and ask what it was, and why it changed. */
    public static void main(String[] arguments) throws Exception {
        String address = "java-" + ProcessHandle.current().pid() + "@example.com";

        NewUser fresh = new NewUser().email(address).name("Ada Byron").passwordHash("$argon2id$of-java");
        User created = create(fresh, "Signed up");
        String key = created.getKey();

        ApiResponse<User> read = USERS.getUserWithHttpInfo(get(key));
        String etag = read.getHeaders().get("etag").get(0);
        UserPatch patch = new UserPatch().name("Ada King");
        // What is not ASCII goes as RFC 8187 has it.
        String reason = "UTF-8''" + ApiClient.urlEncode("Name nach der Heirat geändert");
        User changed = USERS.changeUser(change(key, patch).xChangeRationale(reason).ifMatch(etag).build());
        same(created.getVersion() + 1, changed.getVersion());
        same("Ada King", changed.getState().getName());
        USERS.changeUser(change(key, new UserPatch().name("Ada Lovelace")).build());

        // A key that was used before has older versions, too.
        List<UserPriorVersion> versions = pages(key);
        UserPriorVersion first = versions.get(versions.size() - 2);
        same(created.getVersion(), first.getVersion());
        same(changed.getVersion(), versions.get(versions.size() - 1).getVersion());
        same(Map.of("change_rationale", "Name nach der Heirat geändert"), first.getChangeInfo().getExtra());

        UserVersion then = USERS.getUserVersionAt(
                APIGetUserVersionAtRequest.newBuilder().key(key).at(first.getChanged()).build());
        same(changed.getVersion(), then.getVersion());
        same("Ada King", then.getState().getName());

        Diff diff = USERS.diffUserVersions(APIDiffUserVersionsRequest.newBuilder()
                .key(key)
                .from(String.valueOf(created.getVersion()))
                .build());
        same("Ada Byron", diff.getChanges().get("name").getFrom());
        same("Ada Lovelace", diff.getChanges().get("name").getTo());

        problem(404, "/problems/unknown-record", () -> USERS.getUser(get("0")));
        problem(409, "/problems/conflict", () -> create(fresh, null));
        APIChangeUserRequest late = change(key, patch).ifMatch(etag).build();
        problem(412, "/problems/precondition-failed", () -> USERS.changeUser(late));
        UserPatch tooLong = new UserPatch().name("A".repeat(201));
        problem(422, "/problems/invalid", () -> USERS.changeUser(change(key, tooLong).build()));

        writeMany(key, etag);

        USERS.deleteUser(
                APIDeleteUserRequest.newBuilder().key(key).xChangeRationale("Left").build());
        problem(410, "/problems/deleted", () -> USERS.getUser(get(key)));
    }
}
