import chrononaut.ApiClient;
import chrononaut.ApiException;
import chrononaut.ApiResponse;
import chrononaut.api.UserApi;
import chrononaut.model.Diff;
import chrononaut.model.NewUser;
import chrononaut.model.Problem;
import chrononaut.model.User;
import chrononaut.model.UserPatch;
import chrononaut.model.UserPriorVersion;
import chrononaut.model.UserVersion;
import chrononaut.model.UserVersions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** A record and its history, by the client that openapi-generator generates. */
public final class Example {
    private static final ApiClient CLIENT = new ApiClient();

    private interface Call {
        void send() throws ApiException;
    }

    private static void same(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }

    /** The problem that a request must be answered with; a client decides by its status and its type. */
    private static Problem problem(int status, String type, Call call) throws Exception {
        try {
            call.send();
        } catch (ApiException error) {
            Problem found = CLIENT.getObjectMapper().readValue(error.getResponseBody(), Problem.class);
            same(status, found.getStatus());
            same(type, String.valueOf(found.getType()));
            System.out.println(found.getStatus() + " " + found.getType() + ": " + found.getDetail());
            return found;
        }
        throw new AssertionError("expected " + status + " " + type);
    }

    /** All prior versions of a user, page by page. */
    private static List<UserPriorVersion> pages(UserApi users, String key) throws ApiException {
        List<UserPriorVersion> versions = new ArrayList<>();
        String cursor = null;
        do {
            UserVersions page = users.listUserVersions(key, 1, cursor, null, null, null);
            versions.addAll(page.getVersions());
            cursor = page.getNext();
        } while (cursor != null);
        return versions;
    }

    /** Make a user, change it, and ask what it was, and why it changed. */
    public static void main(String[] arguments) throws Exception {
        CLIENT.updateBaseUri(System.getenv("CHRONONAUT_URL"));
        CLIENT.setRequestInterceptor(
                request -> request.header("Authorization", "Bearer " + System.getenv("CHRONONAUT_TOKEN")));
        UserApi users = new UserApi(CLIENT);
        String address = "java-" + ProcessHandle.current().pid() + "@example.com";

        NewUser fresh = new NewUser().email(address).name("Ada Byron").passwordHash("$argon2id$of-java");
        User created = users.createUser(fresh, "Signed up");
        String key = created.getKey();

        ApiResponse<User> read = users.getUserWithHttpInfo(key, null, null, null, null);
        String etag = read.getHeaders().get("etag").get(0);
        UserPatch patch = new UserPatch().name("Ada King");
        // What is not ASCII goes as RFC 8187 has it.
        String reason = "UTF-8''" + ApiClient.urlEncode("Name nach der Heirat geändert");
        User changed = users.changeUser(key, patch, reason, etag);
        same(created.getVersion() + 1, changed.getVersion());
        same("Ada King", changed.getState().getName());
        users.changeUser(key, new UserPatch().name("Ada Lovelace"), null, null);

        // A key that was used before has older versions, too.
        List<UserPriorVersion> versions = pages(users, key);
        UserPriorVersion first = versions.get(versions.size() - 2);
        same(created.getVersion(), first.getVersion());
        same(changed.getVersion(), versions.get(versions.size() - 1).getVersion());
        same(Map.of("change_rationale", "Name nach der Heirat geändert"), first.getChangeInfo().getExtra());

        UserVersion then = users.getUserVersionAt(first.getChanged(), key);
        same(changed.getVersion(), then.getVersion());
        same("Ada King", then.getState().getName());

        Diff diff = users.diffUserVersions(String.valueOf(created.getVersion()), key, null, null, null);
        same("Ada Byron", diff.getChanges().get("name").getFrom());
        same("Ada Lovelace", diff.getChanges().get("name").getTo());

        problem(404, "/problems/unknown-record", () -> users.getUser("0", null, null, null, null));
        problem(409, "/problems/conflict", () -> users.createUser(fresh, null));
        problem(412, "/problems/precondition-failed", () -> users.changeUser(key, patch, null, etag));
        UserPatch tooLong = new UserPatch().name("A".repeat(201));
        problem(422, "/problems/invalid", () -> users.changeUser(key, tooLong, null, null));

        users.deleteUser(key, "Left", null);
        problem(410, "/problems/deleted", () -> users.getUser(key, null, null, null, null));
    }
}
